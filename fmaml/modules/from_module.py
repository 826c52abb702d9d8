"""Any `torch.nn.Module` as a `Model`; what torch gets wrong in it is replaced or refused.

The functions of `fmaml.torch_fixes.functions` are replaced, or refused when called, whatever layer calls them. The
layers of `fmaml.torch_fixes.unsupported_layers` are refused by name before training starts: they have no second
derivative, draw from the global random generator, or update their own buffers or parameters.
"""

# how often a tensor was changed in place has no public name, and some methods of torch.nn have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import contextlib
import copy
import difflib
import fnmatch
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..nn.layers import check_names
from ..torch_fixes.convolution import conv2d
from ..torch_fixes.functions import EXACT, ExactFunctions, TorchFunction
from ..torch_fixes.layout import channels_last, shape_of_all_tasks
from ..torch_fixes.max_pool import max_pool
from ..torch_fixes.unsupported_layers import Dropout, RunningStats, prepare, refused
from ..tree import leaves
from ..types import Model, Params
from .calls import arguments, know_batch_encodings, selected
from .dropout import Keyed, dropouts

_LOCK = threading.RLock()  # one for all modules; the same thread may call one module within another
IN_PLACE = "a call changes a buffer or a frozen parameter in place, and the next call sees it; compute a new tensor"


def from_module(
    module: nn.Module,
    *,
    trainable: Sequence[str] | None = None,
    output: str | Callable[[Any], Tensor] | None = None,
    running_stats: RunningStats = "refuse",
    dropout: Dropout = "refuse",
) -> Model:
    """A model with the forward pass of ``module`` and its parameters under their dotted names.

    The module is copied and not changed. Parameters that are not trainable are frozen: constants of the forward pass,
    held once for all tasks, neither adapted nor learnt, and no part of theta. Threads may call the model at once, and
    then take turns.

    ``apply(params, x)`` calls the module with x if it is a tensor, with its entries by position if it is a tuple, and
    by name if it is a dict, such as ``dict(tokenizer(..))``: every tensor [n, ..].

    Args:
        module: any module.
        trainable: patterns of the names that are learnt, such as ``("head.*", "*lora*")``, whatever ``requires_grad``
            says; None: those with ``requires_grad=True``.
        output: which part of the module's result is the output, such as "logits", or a function of the result; None:
            the result, which must be a tensor.
        running_stats: what to do with norm layers that keep running statistics: "refuse" them, use the statistics of
            the current "batch" as MAML does, or the stored ones, "frozen".
        dropout: what to do with dropout in training mode: "refuse" it, since it draws from the global generator, or
            take its random bits from keys that come with x, "keyed": x is then `fmaml.Keyed`, as `fmaml.with_keys`
            makes of tasks. With any other x nothing is dropped, as in a test.

    Returns:
        A model whose ``init`` returns copies of the module's current values, such as pretrained ones; it draws no
        random numbers.

    Raises:
        ValueError: some layers cannot be used; the message names each, with the reason and an alternative. Or all
            parameters are frozen, or a pattern fits no parameter. From ``apply``: the parameters are not those of the
            module that are not frozen, or the result is no tensor.

    >>> import torch, fmaml
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> model = fmaml.from_module(module)
    >>> params = model.init(torch.Generator())
    >>> list(params)
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> x = torch.ones(3, 2)
    >>> torch.equal(model.apply(params, x), module(x))
    True
    """
    if running_stats not in ("refuse", "batch", "frozen"):
        raise ValueError(f"running_stats = {running_stats!r}: must be 'refuse', 'batch' or 'frozen'")
    if dropout not in ("refuse", "keyed"):
        raise ValueError(f"dropout = {dropout!r}: must be 'refuse' or 'keyed'")
    know_batch_encodings()
    found = refused(module, running_stats, dropout)
    problems = [f"  {name or 'itself'} ({type(m).__name__}): {why}" for name, m, why in found]
    if problems:
        raise ValueError(f"from_module({type(module).__name__}): cannot be meta-trained\n" + "\n".join(problems))
    learnt = learnt_names(module, trainable)
    skeleton = copy.deepcopy(module).requires_grad_(False)
    for layer in skeleton.modules():
        prepare(layer, running_stats)
    return model_of(skeleton, tuple(learnt), output, dropout)


def model_of(
    skeleton: nn.Module, learnt: tuple[str, ...], output: str | Callable[[Any], Tensor] | None, dropout: Dropout
) -> Model:
    """The model of a module that nobody else holds; ``learnt`` are the names of the parameters that are not frozen."""
    named = dict(skeleton.named_parameters())
    values = {name: named.pop(name) for name in learnt}
    call = ModuleCall(skeleton, constants={**dict(skeleton.named_buffers()), **named})

    def init(generator: Generator | None = None) -> Params:
        return {name: value.detach().clone() for name, value in values.items()}

    def apply(params: Params, x: Any) -> Tensor:
        check_names(params, values.keys())
        dropped: dict[TorchFunction, TorchFunction] = {}
        if dropout == "keyed":
            x, keys = x if isinstance(x, Keyed) else (x, None)
            dropped = dropouts(keys)
        return selected(call(params, x, dropped), output)

    return Model(init, apply)


class ModuleCall:
    """Calls a module with other parameters, and with exact and fast functions in place of torch's.

    ``constants`` are its buffers and frozen parameters, copied once to each device where they are needed.
    """

    def __init__(self, module: nn.Module, constants: Params) -> None:
        tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.module = copy.deepcopy(module, tensors)  # the same tensors in a module where a call puts others
        self.constants = constants
        self.constants_on: dict[torch.device, Params] = {}
        self.in_fastest_layout = FastLayout()
        self.convolution = first_convolution(module)

    def __call__(self, params: Params, x: Any, dropped: dict[TorchFunction, TorchFunction]) -> Any:
        """The module's result, with the dropout functions ``dropped``; ValueError if it changes a constant."""
        device = leaves(x)[0].device
        if device not in self.constants_on:
            self.constants_on[device] = {name: tensor.to(device) for name, tensor in self.constants.items()}
        constants = self.constants_on[device]
        before = versions(constants)
        with (
            module_lock(),
            sdpa_kernel(SDPBackend.MATH),  # fused attention has no second derivative
            ExactFunctions(EXACT | FAST | dropped),
        ):
            result = self._forward({**constants, **params}, x)
        if versions(constants) != before:
            raise ValueError(f"from_module({type(self.module).__name__}): {IN_PLACE}")
        return result

    def _forward(self, weights: Params, x: Any) -> Any:
        """The module's result; ValueError if torch cannot vmap the module."""

        def forward(x: Any) -> Any:
            return functional_call(self.module, weights, *arguments(x))

        try:
            return self.in_fastest_layout(forward, x, weights.get(self.convolution))
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            failed = f"{type(self.module).__name__} ({str(error).split('. ')[0].splitlines()[0]})"
            raise ValueError(f'from_module: torch cannot vmap {failed}; use batching="loop"') from error


def first_convolution(module: nn.Module) -> str:
    """The name of a parameter of the first convolution of images; empty if there is none."""
    for name, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        if isinstance(layer, nn.Conv2d):
            for part, _ in layer.named_parameters():
                return f"{name}.{part}".lstrip(".")
    return ""


FAST: dict[TorchFunction, TorchFunction] = {F.conv2d: conv2d, F.max_pool2d: max_pool}


class FastLayout:
    """Calls a function of images in the layout that is fastest, or in torch's usual one where it needs that."""

    def __init__(self) -> None:
        self.usual: set[tuple[int, ...]] = set()  # shapes of x that need it, so that a call does not depend on others

    def __call__(self, function: Callable[[Any], Any], x: Any, weight: Tensor | None) -> Any:
        """The function of x; ``weight`` is a parameter of its first convolution, if it has one."""
        if weight is None or not (isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()):
            return function(x)
        laid_out = channels_last(x, weight)
        if laid_out is x or (shape := shape_of_all_tasks(x)) in self.usual:
            return function(x)
        try:
            return function(laid_out)
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            self.usual.add(shape)
        return function(x)


def versions(tensors: Params) -> list[int]:
    """How often each was changed in place; nothing in a call that torch.compile traces."""
    return [] if torch.compiler.is_compiling() else [t._version for t in tensors.values() if not t.is_inference()]


def module_lock() -> contextlib.AbstractContextManager[Any]:
    """The calls of two threads one after the other.

    `functional_call` puts the parameters into the module for the time of the call, and `sdpa_kernel` sets flags of the
    whole process. A call that torch.compile traces does neither, and could not be traced with a lock.
    """
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _LOCK


def to_module(module: nn.Module, params: Params) -> nn.Module:
    """A copy of the module with these parameters, such as adapted ones: what `from_module` took apart, together again.

    Args:
        module: what the model was made of.
        params: name -> tensor, such as phi, and what `running_statistics` returned; what is not in it, such as frozen
            parameters, is the module's own.

    Returns:
        The copy; the module is not changed.

    Raises:
        ValueError: a name or a shape is not one of the module's parameters and buffers.

    >>> import torch, fmaml
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> phi = fmaml.from_module(module, trainable=["2.*"]).init(torch.Generator())
    >>> fmaml.to_module(module, {**phi, "2.bias": torch.ones(1)})[2].bias.item()
    1.0
    """
    copied = copy.deepcopy(module)
    named = {**dict(copied.named_parameters()), **dict(copied.named_buffers())}
    for name, value in params.items():
        if name not in named or named[name].shape != value.shape:
            has = f"there {list(named[name].shape)}" if name in named else "not a parameter of the module"
            raise ValueError(f"to_module({type(module).__name__}): {name} {list(value.shape)}: {has}")
    with torch.no_grad():
        for name, value in params.items():
            named[name].copy_(value)
    return copied


def learnt_names(module: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """The names of the parameters that are learnt; ValueError if there are parameters and none is."""
    named = dict(module.named_parameters())
    if patterns is None:
        names = [name for name, p in named.items() if p.requires_grad]
        if named and not names:
            raise ValueError(
                f"from_module({type(module).__name__}): every parameter has requires_grad=False, so nothing could be "
                f"learnt; call requires_grad_() on what is to be learnt, or give trainable"
            )
        return names
    if isinstance(patterns, str):
        raise ValueError(f"trainable = {patterns!r}: must be a list of patterns, such as [{patterns!r}]")
    if not patterns:
        raise ValueError('trainable = []: nothing could be learnt; name parameters, such as ["head.*"]')
    names = dict(module.named_parameters(remove_duplicate=False))  # of a tied parameter all
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            closest = difflib.get_close_matches(pattern, names, 3, 0) or list(names)[:3]
            raise ValueError(f"trainable: {pattern!r} fits no parameter; the nearest are {', '.join(closest)}")
    learnt = {id(p) for name, p in names.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    return [name for name, p in named.items() if id(p) in learnt]
