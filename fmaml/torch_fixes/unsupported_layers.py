"""The layers of a `torch.nn.Module` that cannot be meta-trained, and the settings of those that can."""

# only private base classes of torch.nn cover whole groups of layers, and some of their methods have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, cast

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

RunningStats: TypeAlias = Literal["refuse", "batch", "frozen"]
Dropout: TypeAlias = Literal["refuse", "keyed"]
Refusal: TypeAlias = tuple[Any, Callable[[Any], bool], str]

REFUSED: list[Refusal] = [  # (layer type, condition, reason and alternative)
    (
        (nn.DataParallel, nn.parallel.DistributedDataParallel),
        lambda m: True,
        "spreads its batch over devices; give the network within, its .module",
    ),
    (ScriptModule, lambda m: True, "is scripted; give the module before torch.jit.script"),
    (nn.Module, lambda m: hasattr(m, "_orig_mod"), "is compiled; give the module before torch.compile, its ._orig_mod"),
    (
        nn.Module,
        lambda m: bool(m._backward_hooks or m._backward_pre_hooks),
        "has a backward hook, which torch.func does not call; remove it, by .remove() of its handle",
    ),
    (
        nn.Module,
        lambda m: any(map(has_gradient_hook, m.parameters(recurse=False))),
        "has a hook on a parameter, which torch.func does not call; remove it. For a mask of the gradient use w * mask "
        "+ (w * (1 - mask)).detach() in the forward pass, or freeze the parameter",
    ),
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
        "has the old weight_norm, which sets attributes; use torch.nn.utils.parametrizations.weight_norm",
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
WITH_KEYS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)  # supported by dropout="keyed"
RUNNING = (
    "keeps running statistics; build it with track_running_stats=False, or pass running_stats='batch' (the statistics "
    "of the current batch, as MAML does) or running_stats='frozen' (the stored ones, never updated)"
)


def refused(module: nn.Module, running_stats: RunningStats, dropout: Dropout) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, layer, reason) for each layer that cannot be used."""
    for name, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        if dropout == "keyed" and isinstance(layer, WITH_KEYS):
            continue
        yield from ((name, layer, why) for kind, when, why in REFUSED if isinstance(layer, kind) and when(layer))
        if running_stats == "refuse" and getattr(layer, "track_running_stats", False):
            yield name, layer, RUNNING


def has_gradient_hook(parameter: Tensor) -> bool:
    """Whether autograd would call a function on the parameter's gradient."""
    return bool(parameter._backward_hooks or cast(Any, parameter)._post_accumulate_grad_hooks)


def has_hook(module: nn.Module, kind: type) -> bool:
    """Whether the module has a hook of this kind before its forward pass."""
    hooks = cast(dict[int, Any], module._forward_pre_hooks)
    return any(isinstance(hook, kind) for hook in hooks.values())


def keeps_running_statistics(layer: nn.Module) -> bool:
    """Whether the layer is a norm with running statistics."""
    return isinstance(layer, _NormBase) and layer.track_running_stats


def prepare(layer: Any, running_stats: RunningStats) -> None:
    """Set up the layer for meta-training, in place, because modules may share it."""
    if keeps_running_statistics(layer):
        layer.training = False  # training mode updates the statistics
        if running_stats == "batch":
            layer.track_running_stats = False  # instance norm reads this flag
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(layer, buffer, None)
    if isinstance(layer, nn.MultiheadAttention) and not layer.training:
        layer.dropout = 0.0
    if isinstance(layer, (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)):
        layer.training = True  # avoids the fused path for inference, which has no derivative
