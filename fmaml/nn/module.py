"""Any `torch.nn.Module` as a `Model`; layers whose derivatives torch gets wrong are rewritten or refused.

Rewritten: batch, instance and layer norm with a weight, whose second-order gradients are silently wrong when a gradient
is taken of a vmap; the norm without its weight, multiplied by the weight, is exact. Refused: layers without a vmap rule
or a second derivative, layers that draw from the global random generator, and layers that update their own buffers.
Norms that a module calls as functions cannot be detected here: they are right in `meta_grad` and `meta_step`, whose
gradient is taken inside the vmap, but not in a gradient of `meta_loss`.
"""

# only private base classes of torch.nn cover whole groups of layers, and some of their methods have no types:
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false

import copy
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, Literal, TypeAlias, cast

from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

from ..types import Model, Params
from .norms import batch_norm, channelwise, standardise_batch, standardise_instances, standardise_last

RunningStats: TypeAlias = Literal["refuse", "batch", "frozen"]
Norm: TypeAlias = _NormBase | nn.LayerNorm
OWN_FORWARD = {_BatchNorm.forward, _InstanceNorm.forward, nn.LayerNorm.forward}
Refusal: TypeAlias = tuple[Any, Callable[[Any], bool], str]

REFUSED: list[Refusal] = [  # (layer type, condition, reason and alternative)
    ((nn.RNNBase, nn.RNNCellBase), lambda m: True, "has no vmap rule, nor a second derivative on cuDNN; use nn.Linear"),
    (nn.EmbeddingBag, lambda m: True, "has no second derivative; use nn.Embedding and a mean"),
    (nn.Hardsigmoid, lambda m: True, "has no second derivative; use nn.Sigmoid"),
    (_WeightNorm, lambda m: True, "has a wrong second derivative; remove the parametrization"),
    (_SpectralNorm, lambda m: True, "updates its buffers in place; remove the parametrization"),
    (LazyModuleMixin, lambda m: m.has_uninitialized_params(), "has no parameters yet; call the module once"),
    (_DropoutNd, lambda m: m.training and m.p > 0, "draws from the global generator; use p=0 or .eval()"),
    (nn.MultiheadAttention, lambda m: m.training and m.dropout > 0, "has dropout; use dropout=0 or .eval()"),
    (Norm, lambda m: type(m).forward not in OWN_FORWARD, "has a forward of its own; use the norm of torch.nn itself"),
    (nn.RReLU, lambda m: m.training, "draws from the global generator; use nn.LeakyReLU or .eval()"),
]
RUNNING = (
    "keeps running statistics; build it with track_running_stats=False, or pass running_stats='batch' (the statistics "
    "of the current batch, as MAML does) or running_stats='frozen' (the stored ones, never updated)"
)


def from_module(module: nn.Module, *, running_stats: RunningStats = "refuse") -> Model:
    """A model with the forward pass of ``module`` and its parameters under their dotted names.

    The module is copied and not changed.

    Args:
        module: any module that maps one tensor to one tensor.
        running_stats: what to do with norm layers that keep running statistics: "refuse" them, use the statistics of
            the current "batch" as MAML does, or the stored ones, "frozen".

    Returns:
        A model whose ``init`` returns copies of the module's current values, pretrained and frozen ones included; it
        draws no random numbers.

    Raises:
        ValueError: some layers cannot be used; the message names each, with the reason and an alternative. From
            ``apply``: the parameters are not those of the module.

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
    problems = [f"  {name or 'itself'} ({type(m).__name__}): {why}" for name, m, why in refused(module, running_stats)]
    if problems:
        raise ValueError(f"from_module({type(module).__name__}): cannot be meta-trained\n" + "\n".join(problems))
    skeleton = copy.deepcopy(module).requires_grad_(False)
    for layer in skeleton.modules():
        rewrite(layer, running_stats)
    named = dict(skeleton.named_parameters())
    values = {name: value for name, value in named.items() if value.is_floating_point()}
    constants = {**dict(skeleton.named_buffers()), **{name: named[name] for name in named.keys() - values.keys()}}

    def init(generator: Generator | None = None) -> Params:
        return {name: value.detach().clone() for name, value in values.items()}

    def apply(params: Params, x: Tensor) -> Tensor:
        if params.keys() != values.keys():
            raise ValueError(
                f"params {sorted(params.keys() ^ values.keys())}: missing, or not parameters of the module"
            )
        state = {name: value.to(x.device) for name, value in constants.items()}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return functional_call(skeleton, {**state, **params}, (x,))

    return Model(init, apply)


def refused(module: nn.Module, running_stats: RunningStats) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, layer, reason) for each layer that cannot be used."""
    for name, layer in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        yield from ((name, layer, why) for kind, when, why in REFUSED if isinstance(layer, kind) and when(layer))
        if running_stats == "refuse" and getattr(layer, "track_running_stats", False):
            yield name, layer, RUNNING


def rewrite(layer: Any, running_stats: RunningStats) -> None:
    """Replace the layer's forward, in place, by one whose derivatives are right."""
    if isinstance(layer, Norm):
        if getattr(layer, "track_running_stats", False) and running_stats == "batch":
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(layer, buffer, None)
        layer.forward = MethodType(norm_outside, layer)
    if isinstance(layer, nn.MultiheadAttention) and not layer.training:
        layer.dropout = 0.0
    if isinstance(layer, (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)):
        layer.training = True  # in training mode it does not take the fused path for inference, which has no derivative


def norm_outside(layer: Any, x: Tensor) -> Tensor:
    """The norm layer's output, with its weight and bias applied outside the fused operation."""
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, _BatchNorm) and layer.running_mean is None and weight is not None and bias is not None:
        layer._check_input_dim(x)
        return batch_norm(x, weight, bias, layer.eps)
    y = normalised_only(layer, x)
    if weight is None:
        return y
    positions = 0 if isinstance(layer, nn.LayerNorm) else x.ndim - (1 if unbatched(layer, x) else 2)
    shape = weight.shape + (1,) * positions
    return y * weight.view(shape) + (0 if bias is None else bias.view(shape))


def normalised_only(layer: Any, x: Tensor) -> Tensor:
    """The norm without weight and bias; stored statistics, if the layer has any, are used but not updated."""
    if isinstance(layer, nn.LayerNorm):
        return standardise_last(x, tuple(layer.normalized_shape), layer.eps)
    layer._check_input_dim(x)
    batch = x[None] if unbatched(layer, x) else x
    y = by_own_statistics(layer, batch) if layer.running_mean is None else by_stored_statistics(layer, batch)
    return y[0] if unbatched(layer, x) else y


def by_own_statistics(layer: nn.Module, x: Tensor) -> Tensor:
    """Batch or instance norm by the statistics of x itself."""
    eps = cast(Any, layer).eps
    return standardise_batch(x, eps) if isinstance(layer, _BatchNorm) else standardise_instances(x, eps)


def by_stored_statistics(layer: Any, x: Tensor) -> Tensor:
    """Batch or instance norm by the layer's running statistics: an affine map with constant coefficients."""
    scale = (layer.running_var + layer.eps).rsqrt()
    return channelwise(x, scale, -layer.running_mean * scale)


def unbatched(layer: nn.Module, x: Tensor) -> bool:
    """Whether x is a single example without a batch axis, which an instance norm accepts."""
    return isinstance(layer, _InstanceNorm) and x.ndim == cast(Any, layer)._get_no_batch_dim()
