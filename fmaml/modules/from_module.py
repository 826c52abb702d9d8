"""Any `torch.nn.Module` as a `Model`; functions and layers with wrong derivatives are replaced or refused.

The functions of `fmaml.torch_fixes.functions` are replaced, or refused when a layer calls them. The layers of
`fmaml.torch_fixes.unsupported_layers` are refused by name before training starts. They have no second derivative, draw
from the global random generator, or update their own buffers or parameters.
"""

# the version counter of a tensor has no public name, and some methods of torch.nn have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import contextlib
import difflib
import fnmatch
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..nn.layers import check_names
from ..torch_fixes.convolution import conv2d
from ..torch_fixes.explain import with_cures
from ..torch_fixes.functions import EXACT, ExactFunctions, TorchFunction
from ..torch_fixes.grad_levels import is_under_vmap, outside_transforms
from ..torch_fixes.layout import channels_last, shape_of_all_tasks
from ..torch_fixes.max_pool import max_pool
from ..torch_fixes.unsupported_layers import Dropout, RunningStats, prepare, refused
from ..tree import leaves
from ..types import Model, Params
from .calls import arguments, know_batch_encodings, selected
from .dropout import Keyed, dropouts
from .fused_layers import fuse_layers
from .hidden_tensors import Places, aliases, copied_module, swapped
from .trial import STATELESS, Trial

_LOCK = threading.RLock()  # for all modules; reentrant, because a module may call another one
IN_PLACE = f"a buffer or a frozen parameter in place, which affects later calls; {STATELESS}"
NOT_KEPT = f"which is not kept for the next call; {STATELESS}"


def from_module(
    module: nn.Module,
    *,
    trainable: Sequence[str] | None = None,
    output: str | Callable[[Any], Tensor] | None = None,
    running_stats: RunningStats = "refuse",
    dropout: Dropout = "refuse",
) -> Model:
    """A model with the forward pass of ``module`` and its parameters under their dotted names.

    The module is copied and not changed. Parameters not in ``trainable`` are frozen: they are constants outside theta,
    held once for all tasks. Threads may share the model; their calls take turns.

    ``apply(params, x)`` passes x to the module: the entries of a tuple by position, and those of a dict, such as
    ``dict(tokenizer(..))``, by name. Every tensor is [n, ..].

    Args:
        module: any module.
        trainable: patterns of the names of learnt parameters, such as ``("head.*", "*lora*")``, regardless of
            ``requires_grad``; None: those with ``requires_grad=True``.
        output: the part of the module's result that is the output, such as "logits", or a function of the result; None:
            the result, which must be a tensor.
        running_stats: norm layers with running statistics are refused ("refuse"), use those of the current batch as in
            MAML ("batch"), or use the stored ones ("frozen").
        dropout: dropout in training mode is refused, because it draws from the global generator ("refuse"), or takes
            its random bits from keys ("keyed"). Then x is `fmaml.Keyed`, as `fmaml.with_keys` makes it. With any other
            x nothing is dropped, as in testing.

    Returns:
        A model. Its ``init`` returns copies of the module's current values, such as pretrained ones, and draws no
        random numbers.

    Raises:
        ValueError: some layers cannot be used; the message names each, with the reason and an alternative. Or all
            parameters are frozen, or a pattern matches no parameter. From ``apply``: the parameters are not the
            module's learnt ones, or the output is not a tensor.

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
    problems = [f"{name or 'itself'} ({type(m).__name__}): {why}" for name, m, why in found]
    if problems:
        raise ValueError(refusal(module, problems))
    learnt = learnt_names(module, trainable)
    skeleton, kept = copied_module(module)
    skeleton.requires_grad_(False)
    found = aliases(skeleton, module, learnt)
    if found.refused:
        raise ValueError(refusal(module, found.refused))
    for layer in skeleton.modules():
        prepare(layer, running_stats)
    fuse_layers(skeleton)
    return model_of(skeleton, tuple(learnt), output, dropout, Trial(skeleton, module, learnt, kept), found.swapped)


def refusal(module: nn.Module, problems: list[str]) -> str:
    """The message of a module that cannot be used."""
    return "\n  ".join([f"from_module({type(module).__name__}): cannot be meta-trained", *problems])


def model_of(
    skeleton: nn.Module,
    learnt: tuple[str, ...],
    output: str | Callable[[Any], Tensor] | None,
    dropout: Dropout,
    trial: Trial,
    elsewhere: Places = (),
) -> Model:
    """The model of a module that is not used elsewhere; ``learnt`` are the names of the parameters not frozen."""
    named = dict(skeleton.named_parameters())
    values = {name: named.pop(name) for name in learnt}
    call = ModuleCall(skeleton, {**dict(skeleton.named_buffers()), **named}, trial, elsewhere)

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
    """Call a module with other parameters, and with exact and fast functions instead of torch's.

    ``constants`` are its buffers and frozen parameters. They are copied to each device once, on demand. ``elsewhere``
    are the lists and dicts of the module that have parameters, too.
    """

    def __init__(self, module: nn.Module, constants: Params, trial: Trial, elsewhere: Places) -> None:
        self.module, self.constants, self.trial, self.elsewhere = module, constants, trial, elsewhere
        self.constants_on: dict[torch.device, Params] = {}
        self.in_fastest_layout = FastLayout()
        self.convolution = first_convolution(module)

    def __call__(self, params: Params, x: Any, dropped: dict[TorchFunction, TorchFunction]) -> Any:
        """The module's result, with the dropout functions ``dropped``; ValueError if it changes a constant."""
        device = leaves(x)[0].device
        if device not in self.constants_on:
            with outside_transforms():
                self.constants_on[device] = {name: tensor.to(device) for name, tensor in self.constants.items()}
        constants = self.constants_on[device]
        with module_lock(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            if not torch.compiler.is_compiling():
                self.trial(partial(self._call, constants, dropouts(None) if dropped else {}), params, x)
            return self._call(constants, dropped, params, x)

    def _call(self, constants: Params, dropped: dict[TorchFunction, TorchFunction], params: Params, x: Any) -> Any:
        before, weights = versions(constants), {**constants, **params}
        with ExactFunctions(EXACT | FAST | dropped), swapped(self.elsewhere, weights):
            result = self._forward(weights, x)
        if versions(constants) != before:
            raise ValueError(f"from_module({type(self.module).__name__}): a call changes {IN_PLACE}")
        for name, value in {**constants, **params}.items():
            if weights[name] is not value:
                raise ValueError(f"from_module({type(self.module).__name__}): a call sets {name}, {NOT_KEPT}")
        return result

    def _forward(self, weights: Params, x: Any) -> Any:
        """The module's result; ValueError if torch cannot differentiate or vmap the module."""

        def forward(x: Any) -> Any:
            return functional_call(self.module, weights, *arguments(x))

        if torch.compiler.is_compiling():
            return self.in_fastest_layout(forward, x, weights.get(self.convolution))
        with with_cures(f"from_module({type(self.module).__name__})", is_under_vmap):
            return self.in_fastest_layout(forward, x, weights.get(self.convolution))


def first_convolution(module: nn.Module) -> str:
    """The name of a parameter of the first convolution of images; empty if there is none."""
    for name, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        if isinstance(layer, nn.Conv2d):
            for part, _ in layer.named_parameters():
                return f"{name}.{part}".lstrip(".")
    return ""


FAST: dict[TorchFunction, TorchFunction] = {F.conv2d: conv2d, F.max_pool2d: max_pool}


class FastLayout:
    """Call a function of images in the fastest layout, or in torch's usual layout if the function needs that."""

    def __init__(self) -> None:
        self.usual: set[tuple[int, ...]] = set()  # shapes of x that need the usual layout

    def __call__(self, function: Callable[[Any], Any], x: Any, weight: Tensor | None) -> Any:
        """The function's result for x; ``weight`` is a parameter of its first convolution, None without one."""
        if weight is None or not (isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()):
            return function(x)
        laid_out = channels_last(x)
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
    """The number of changes in place of each tensor; empty in a call that torch.compile traces."""
    return [] if torch.compiler.is_compiling() else [t._version for t in tensors.values() if not t.is_inference()]


def module_lock() -> contextlib.AbstractContextManager[Any]:
    """Run the calls of threads one after the other.

    `functional_call` puts the parameters into the module during the call, and `sdpa_kernel` sets flags of the whole
    process. A call that torch.compile traces does neither, and a lock cannot be traced.
    """
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _LOCK


def to_module(module: nn.Module, params: Params) -> nn.Module:
    """A copy of the module with these parameters, such as adapted ones: the inverse of `from_module`.

    Args:
        module: the module that was given to `from_module`.
        params: name -> tensor, such as phi, also with the result of `running_statistics`. All other parameters and
            buffers, such as frozen ones, keep the module's values.

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
    copied, _ = copied_module(module)
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
    """The names of the learnt parameters; ValueError if there are parameters and none is learnt."""
    named = dict(module.named_parameters())
    if patterns is None:
        names = [name for name, p in named.items() if p.requires_grad]
        if named and not names:
            raise ValueError(
                f"from_module({type(module).__name__}): every parameter has requires_grad=False: nothing to learn; "
                f"call requires_grad_() on some of them, or give trainable"
            )
        return names
    if isinstance(patterns, str):
        raise ValueError(f"trainable = {patterns!r}: must be a list of patterns, such as [{patterns!r}]")
    if not patterns:
        raise ValueError('trainable = []: nothing to learn; name parameters, such as ["head.*"]')
    names = dict(module.named_parameters(remove_duplicate=False))  # with all names of tied parameters
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            closest = difflib.get_close_matches(pattern, names, 3, 0) or list(names)[:3]
            raise ValueError(f"trainable: {pattern!r} matches no parameter; the nearest are {', '.join(closest)}")
    learnt = {id(p) for name, p in names.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    return [name for name, p in named.items() if id(p) in learnt]
