"""Any `torch.nn.Module` as a `Model`; what torch gets wrong in it is replaced or refused.

Replaced, or refused when called: the functions of `fmaml.nn.exact_functions`, whatever layer calls them. Refused by the
layer's name, before anything is trained: layers without a second derivative, layers that draw from the global random
generator, and layers that update their own buffers or parameters.
"""

# only private base classes of torch.nn cover whole groups of layers, and some of their methods have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import contextlib
import copy
import difflib
import fnmatch
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..pickling import picklable
from ..tree import leaves
from ..types import Model, Params
from .batch_encoding import know_batch_encodings
from .dropout import Keyed, dropouts
from .exact_functions import EXACT, ExactFunctions
from .models import check_names

RunningStats: TypeAlias = Literal["refuse", "batch", "frozen"]
Dropout: TypeAlias = Literal["refuse", "keyed"]
Refusal: TypeAlias = tuple[Any, Callable[[Any], bool], str]

REFUSED: list[Refusal] = [  # (layer type, condition, reason and alternative)
    (nn.EmbeddingBag, lambda m: True, "has no second derivative; use nn.Embedding and a mean"),
    (_SpectralNorm, lambda m: True, "updates its buffers in place; remove the parametrization"),
    (
        nn.Module,
        lambda m: has_hook(m, SpectralNorm),
        "has spectral_norm, which updates its buffers in place; remove it",
    ),
    (
        nn.Module,
        lambda m: has_hook(m, WeightNorm),
        "has the old weight_norm, which sets attributes; use parametrizations",
    ),
    (nn.Embedding, lambda m: m.max_norm is not None, "changes its weight in place; build it with max_norm=None"),
    (nn.Embedding, lambda m: m.scale_grad_by_freq, "has a wrong derivative under vmap; use scale_grad_by_freq=False"),
    (LazyModuleMixin, lambda m: m.has_uninitialized_params(), "has no parameters yet; call the module once"),
    (
        _DropoutNd,
        lambda m: m.training and m.p > 0,
        "draws from the global generator; use p=0, .eval(), or nn.Dropout with dropout='keyed'",
    ),
    (nn.MultiheadAttention, lambda m: m.training and m.dropout > 0, "has dropout; use dropout=0 or .eval()"),
    (nn.RNNBase, lambda m: m.training and m.dropout > 0, "has dropout; use dropout=0 or .eval()"),
    (nn.RReLU, lambda m: m.training, "draws from the global generator; use nn.LeakyReLU or .eval()"),
]
WITH_KEYS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # what dropout="keyed" can do
_LOCK = threading.RLock()  # one for all modules; the same thread may call one module within another
IN_PLACE = "a call changes a buffer or a frozen parameter in place, and the next call sees it; compute a new tensor"
RUNNING = (
    "keeps running statistics; build it with track_running_stats=False, or pass running_stats='batch' (the statistics "
    "of the current batch, as MAML does) or running_stats='frozen' (the stored ones, never updated)"
)


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


@picklable
def model_of(
    skeleton: nn.Module, learnt: tuple[str, ...], output: str | Callable[[Any], Tensor] | None, dropout: Dropout
) -> Model:
    """The model of a module that nobody else holds; ``learnt`` are the names of the parameters that are not frozen."""
    named = dict(skeleton.named_parameters())
    values = {name: named[name] for name in learnt}
    constants = {**dict(skeleton.named_buffers()), **{name: p for name, p in named.items() if name not in values}}
    kept = {id(tensor): tensor for tensor in (*skeleton.parameters(), *skeleton.buffers())}
    called = copy.deepcopy(skeleton, kept)  # the same tensors in a module of its own, in which a call puts others

    placed: dict[torch.device, Params] = {}  # the constants where they were needed, copied there once

    def init(generator: Generator | None = None) -> Params:
        return {name: value.detach().clone() for name, value in values.items()}

    def apply(params: Params, x: Any) -> Tensor:
        check_names(params, values.keys())
        device = leaves(x)[0].device
        if device not in placed:
            placed[device] = {name: value.to(device) for name, value in constants.items()}
        functions = EXACT
        if dropout == "keyed":
            x, keys = x if isinstance(x, Keyed) else (x, None)
            functions = EXACT | dropouts(keys)
        args, kwargs = arguments(x)
        before = versions(placed[device])
        with (
            turn(),
            sdpa_kernel(SDPBackend.MATH),
            ExactFunctions(functions),
        ):  # fused attention has no second derivative
            try:
                result = functional_call(called, {**placed[device], **params}, args, kwargs)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                raise ValueError(f'from_module: {no_vmap(skeleton, error)}; use batching="loop"') from error
        if versions(placed[device]) != before:
            raise ValueError(f"from_module({type(skeleton).__name__}): {IN_PLACE}")
        return selected(result, output)

    return Model(init, apply)


def versions(tensors: Params) -> list[int]:
    """How often each was changed in place; nothing in a call that torch.compile traces."""
    return [] if torch.compiler.is_compiling() else [t._version for t in tensors.values() if not t.is_inference()]


def turn() -> contextlib.AbstractContextManager[Any]:
    """The calls of two threads one after the other.

    `functional_call` puts the parameters into the module for the time of the call, and `sdpa_kernel` sets flags of the
    whole process. A call that torch.compile traces does neither, and could not be traced with a lock.
    """
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _LOCK


def no_vmap(module: nn.Module, error: RuntimeError) -> str:
    """Why torch cannot vmap the module, from its error."""
    return f"torch cannot vmap {type(module).__name__} ({str(error).split('. ')[0].splitlines()[0]})"


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


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the module is called with, by position and by name."""
    if isinstance(x, Mapping):
        return (), dict(cast(Mapping[str, Any], x))
    return cast(tuple[Any, ...], x) if isinstance(x, tuple) else (x,), {}


def selected(result: Any, output: str | Callable[[Any], Tensor] | None) -> Tensor:
    """The part of a module's result that is the output; ValueError if it is no tensor."""
    by_name = dict(cast(Mapping[str, Any], result)) if isinstance(result, Mapping) else {}
    if isinstance(output, str):
        found = by_name[output] if output in by_name else getattr(cast(Any, result), output, None)
    else:
        found = output(result) if output else cast(Any, result)
    if isinstance(found, Tensor):
        return found
    parts = list(by_name)
    cure = f'output="{parts[0]}"' if parts else "output=lambda result: result[0]"
    named = f" with {', '.join(parts)}" if parts else ""
    kind = type(cast(Any, result)).__name__
    raise ValueError(
        f"from_module: the module returns {kind}{named}, of which output = {output!r} is no tensor; "
        f"give from_module(module, {cure}) or the like"
    )


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


def refused(module: nn.Module, running_stats: RunningStats, dropout: Dropout) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, layer, reason) for each layer that cannot be used."""
    for name, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        if dropout == "keyed" and isinstance(layer, WITH_KEYS):
            continue
        yield from ((name, layer, why) for kind, when, why in REFUSED if isinstance(layer, kind) and when(layer))
        if running_stats == "refuse" and getattr(layer, "track_running_stats", False):
            yield name, layer, RUNNING


def has_hook(module: nn.Module, kind: type) -> bool:
    """Whether an old reparametrization of this kind runs before the module's forward."""
    hooks = cast(dict[int, Any], module._forward_pre_hooks)
    return any(isinstance(hook, kind) for hook in hooks.values())


def keeps_running_statistics(layer: nn.Module) -> bool:
    """Whether it is a norm layer that does, and so has a choice of statistics."""
    return isinstance(layer, _NormBase) and layer.track_running_stats


def prepare(layer: Any, running_stats: RunningStats) -> None:
    """Set the layer up to run as asked; it stays the same object, also where it is shared."""
    if keeps_running_statistics(layer):
        layer.training = False  # in training mode it would update its statistics
        if running_stats == "batch":
            layer.track_running_stats = False  # by which instance norm decides
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(layer, buffer, None)
    if isinstance(layer, nn.MultiheadAttention) and not layer.training:
        layer.dropout = 0.0
    if isinstance(layer, (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)):
        layer.training = True  # in training mode it does not take the fused path for inference, which has no derivative
