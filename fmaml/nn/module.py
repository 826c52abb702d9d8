"""Any `torch.nn.Module` as a `Model`, with the layers that torch gets wrong rewritten or refused by name.

Rewritten: batch, instance and layer norm with a weight of their own, whose second-order gradients are silently wrong
where a gradient is taken of a vmap; the same layer without it, times the weight, is exact. Refused: what has no vmap
rule or no second derivative, what draws random numbers from the global generator, what updates its own buffers.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Literal

from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm

from ..types import Model, Params

RunningStats = Literal["refuse", "batch", "frozen"]
Refusal = tuple[type | tuple[type, ...], Callable[[nn.Module], bool], str]

REFUSED: list[Refusal] = [  # (kind, when, why and what instead)
    ((nn.RNNBase, nn.RNNCellBase), lambda m: True, "has no vmap rule, nor a second derivative on cuDNN; use nn.Linear"),
    (nn.EmbeddingBag, lambda m: True, "has no second derivative; use nn.Embedding and a mean"),
    (nn.Hardsigmoid, lambda m: True, "has no second derivative; use nn.Sigmoid"),
    (_WeightNorm, lambda m: True, "has a wrong second derivative; remove the parametrization"),
    (_SpectralNorm, lambda m: True, "updates its buffers in place; remove the parametrization"),
    (LazyModuleMixin, lambda m: m.has_uninitialized_params(), "has no parameters yet; call the module once"),  # type: ignore
    (_DropoutNd, lambda m: m.training and m.p > 0, "draws from the global generator; use p=0 or .eval()"),  # type: ignore
    (nn.MultiheadAttention, lambda m: m.training and m.dropout > 0, "has dropout; use dropout=0 or .eval()"),  # type: ignore
    (nn.RReLU, lambda m: m.training, "draws from the global generator; use nn.LeakyReLU or .eval()"),
]
RUNNING = (
    "keeps running statistics; build it with track_running_stats=False, or pass running_stats='batch' (those of the "
    "batch at hand, as MAML does) or running_stats='frozen' (the stored ones, never updated)"
)


def from_module(module: nn.Module, *, running_stats: RunningStats = "refuse") -> Model:
    """A model that computes what ``module`` computes, its parameters under their own dotted names.

    ``init`` returns copies of the module's present values, pretrained ones included; it draws nothing. The module is
    copied and stays as it is. Norm layers that keep running statistics are refused unless ``running_stats`` says what
    to do with them. Raises ValueError that names every layer that cannot be used, why, and what to use instead.
    """
    problems = [f"  {name or 'itself'} ({type(m).__name__}): {why}" for name, m, why in refused(module, running_stats)]
    if problems:
        raise ValueError(f"from_module({type(module).__name__}): cannot be meta-trained\n" + "\n".join(problems))
    skeleton = rewrite(copy.deepcopy(module), running_stats).requires_grad_(False)
    values = {name: value.clone() for name, value in skeleton.named_parameters()}
    buffers = dict(skeleton.named_buffers())

    def init(generator: Generator | None = None) -> Params:
        return {name: value.clone() for name, value in values.items()}

    def apply(params: Params, x: Tensor) -> Tensor:
        state = {name: value.to(x.device) for name, value in buffers.items()}
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return functional_call(skeleton, {**state, **params}, (x,))

    return Model(init, apply)


def refused(module: nn.Module, running_stats: RunningStats) -> Iterator[tuple[str, nn.Module, str]]:
    """(name, layer, why) for each layer that cannot be used."""
    for name, layer in module.named_modules():
        yield from ((name, layer, why) for kind, when, why in REFUSED if isinstance(layer, kind) and when(layer))
        if running_stats == "refuse" and getattr(layer, "track_running_stats", False):
            yield name, layer, RUNNING


def rewrite(module: nn.Module, running_stats: RunningStats) -> nn.Module:
    """Replace, in place and under the same parameter names, what computes the right value with a wrong gradient."""
    for name, child in module.named_children():
        setattr(module, name, rewrite(child, running_stats))
    if isinstance(module, _NormBase) and module.track_running_stats:
        module = frozen(module) if running_stats == "frozen" else forget(module)
    if isinstance(module, (nn.MultiheadAttention, nn.TransformerEncoderLayer)):
        module = unfused(module)
    weighted = isinstance(module, (_NormBase, nn.LayerNorm)) and module.weight is not None
    return Affine(module) if weighted else module


class Affine(nn.Module):
    """A norm layer whose weight and bias are applied outside it."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # type: ignore[assignment]
        layer.weight = layer.bias = None  # type: ignore[assignment]
        self.plain = layer

    def forward(self, x: Tensor) -> Tensor:
        shape = self.weight.shape if isinstance(self.plain, nn.LayerNorm) else (-1, *[1] * self.positions(x))
        y = self.plain(x) * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)

    def positions(self, x: Tensor) -> int:
        """How many axes stand behind the channels; an instance norm also takes one example without a batch axis."""
        single = isinstance(self.plain, _InstanceNorm) and x.ndim == self.plain._get_no_batch_dim()
        return x.ndim - (1 if single else 2)


def forget(layer: nn.Module) -> nn.Module:
    """A norm that uses the statistics of the batch at hand."""
    layer.track_running_stats = False  # type: ignore[assignment]
    layer.running_mean = layer.running_var = layer.num_batches_tracked = None  # type: ignore[assignment]
    return layer


def frozen(layer: nn.Module) -> nn.Module:
    """A norm that uses its stored statistics."""
    return layer.eval()


def unfused(layer: nn.Module) -> nn.Module:
    """Attention on its training path, since the fused one for inference has no derivative; dropout stays off."""
    if isinstance(layer, nn.MultiheadAttention):
        layer.dropout = 0.0
    layer.training = True
    return layer
