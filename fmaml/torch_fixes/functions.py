"""Torch's functions whose derivatives are wrong, or which keep state, replaced or refused wherever a module calls them.

A `TorchFunctionMode` sees each call of a torch function, so a norm is found in a layer of torch.nn, in a layer of the
user's own and in a plain call of `torch.nn.functional` alike. Replaced: norms and weight norm, whose derivatives are
wrong in torch 2.13 from the second on under vmap, or from the third on; embeddings with a padding index, whose gradient
is wrong under vmap; the hard sigmoid, which has no second derivative. Refused: the functions of torch beneath those of
torch.nn.functional, random numbers that are used, what changes a parameter or a running statistic in place, and under
vmap what torch has no rule for: recurrent layers, and numbers of a task that Python reads.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .layout import is_vmapped
from .norms import batch_norm, channelwise, standardise_instances, standardise_last


class ExactFunctions(TorchFunctionMode):
    """Calls the functions of a table in place of torch's: by default all of those below."""

    def __init__(self, table: Mapping[Callable[..., Any], Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self.table = EXACT if table is None else table

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return self.table.get(func, func)(*args, **(kwargs or {}))


def refuse(function: str, reason: str) -> NoReturn:
    raise ValueError(f"the network calls {function}, which {reason}")


def exact_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`: by the statistics of the batch, or by stored ones, which are not updated."""
    if not training:
        return scale_and_shift(by_stored_statistics(input, running_mean, running_var, eps), weight, bias)
    if running_mean is not None:
        refuse("F.batch_norm(training=True)", "updates running statistics; give None for them, or call .eval() first")
    ones = input.new_ones(input.shape[1])
    return batch_norm(input, ones if weight is None else weight, torch.zeros_like(ones) if bias is None else bias, eps)


def exact_instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.instance_norm`: by the statistics of each example, or by stored ones, which are not updated."""
    if not use_input_stats:
        return scale_and_shift(by_stored_statistics(input, running_mean, running_var, eps), weight, bias)
    if running_mean is not None:
        refuse("F.instance_norm", "updates running statistics; give None for them, or call .eval() first")
    return scale_and_shift(standardise_instances(input, eps), weight, bias)


def by_stored_statistics(x: Tensor, mean: Tensor | None, var: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) for each channel: an affine map with constant coefficients."""
    if mean is None or var is None:
        refuse("a norm with training=False", "has no stored statistics; give them, or the statistics of the batch")
    scale = (var + eps).rsqrt()
    return channelwise(x, scale, -mean * scale)


def scale_and_shift(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """weight * x + bias, one number a channel, where they are given; x [n, channels, ...]."""
    shape = (-1,) + (1,) * (x.ndim - 2)
    scaled = x if weight is None else x * weight.view(shape)
    return scaled if bias is None else scaled + bias.view(shape)


def exact_layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`F.layer_norm`, with weight and bias outside the kernel."""
    y = standardise_last(input, tuple(normalized_shape), eps)
    scaled = y if weight is None else y * weight
    return scaled if bias is None else scaled + bias


def exact_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """`torch._weight_norm`, g v / |v| with the norm over all axes but ``dim``, in plain operations."""
    axes = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / v.square().sum(axes, keepdim=True).sqrt())


def exact_embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`F.embedding`; the row of the padding index gets no gradient, by a mask."""
    if max_norm is not None:
        refuse("F.embedding(max_norm=..)", "changes its weight in place; build the layer with max_norm=None")
    if scale_grad_by_freq:
        refuse("F.embedding(scale_grad_by_freq=True)", "has a wrong derivative under vmap; build it without")
    found = F.embedding(input, weight)
    if padding_idx is None:
        return found
    padded = (input == padding_idx % weight.shape[0])[..., None]
    return torch.where(padded, found.detach(), found)


def no_dropout(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A dropout function as far as it drops nothing."""

    def exact(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p > 0:
            refuse(f"F.{function.__name__}(training=True)", f"{DRAWS}, or p=0, or from_module(dropout='keyed')")
        return input

    return exact


def exact_attention(*args: Any, **kwargs: Any) -> Tensor:
    """`F.scaled_dot_product_attention` without dropout."""
    if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0:
        refuse("F.scaled_dot_product_attention(dropout_p=..)", DRAWS)
    return F.scaled_dot_product_attention(*args, **kwargs)


def exact_multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward` without dropout."""
    given = signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    if given["dropout_p"] > 0 and given.get("training", True):
        refuse("F.multi_head_attention_forward(training=True)", f"{DRAWS}, or dropout_p=0")
    return F.multi_head_attention_forward(*args, **kwargs)


def exact_hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """`F.hardsigmoid`, relu6(x + 3) / 6, in plain operations."""
    return F.relu6(input + 3) / 6


def exact_adaptive_pooling(input: Tensor, output_size: Any) -> Tensor:
    """`F.adaptive_avg_pool2d`; to one position it is the mean, which torch can vmap in every memory layout."""
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(input, output_size)


def exact_rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.rrelu` with the mean slope, as in testing."""
    if training:
        refuse("F.rrelu(training=True)", DRAWS)
    return F.leaky_relu(input, (lower + upper) / 2)


def drawing(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A random function whose result is refused when it is used; nothing is drawn.

    Some networks draw in every call and use the number in training mode alone, as Wav2Vec2 does to drop layers.
    """

    class Undrawn(Tensor):
        @classmethod
        def __torch_function__(cls, *args: Any, **kwargs: Any) -> NoReturn:
            refuse(f"torch.{function.__name__}", DRAWS)

    return lambda *args, **kwargs: torch.empty(()).as_subclass(Undrawn)


def never(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    """A random function that is refused when it is called."""
    return lambda *args, **kwargs: refuse(function.__name__, DRAWS)


def looped_only(function: Callable[..., Any], why: str) -> Callable[..., Any]:
    """A function that torch cannot vmap."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) and is_vmapped(value) for value in args):
            refuse(function.__name__, f'{why} use batching="loop", and `fmaml.transductive` to score')
        return function(*args, **kwargs)

    return exact


def internal(function: Callable[..., Any], public: str) -> Callable[..., NoReturn]:
    """A function below torch.nn.functional whose derivatives are wrong."""
    return lambda *args, **kwargs: refuse(
        f"torch.{function.__name__}", f"has wrong derivatives under vmap, or from the third on; call {public}"
    )


def named(owner: Any, names: str) -> list[Callable[..., Any]]:
    """The functions of a module or a class with these names, separated by spaces."""
    return [getattr(owner, name) for name in names.split()]


DRAWS = "draws from the global generator; call .eval() first"
READS = (
    "reads a number of a task, which vmap cannot; of transformers, give an attention mask [n, 1, length, length] of "
    "numbers to add, or load a decoder with attn_implementation='eager'; else"
)
DROPOUTS = [
    *named(F, "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"),
    *named(torch, "dropout dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_"),
    *named(torch, "feature_alpha_dropout feature_alpha_dropout_ native_dropout"),
]
DRAWING = [
    *named(torch, "rand randn randint randperm rand_like randn_like randint_like bernoulli normal multinomial poisson"),
    *named(Tensor, "bernoulli multinomial"),
]
NEVER = [
    *named(Tensor, "bernoulli_ uniform_ normal_ random_ exponential_ geometric_ log_normal_ cauchy_"),
    *named(F, "gumbel_softmax fractional_max_pool2d fractional_max_pool2d_with_indices"),
    *named(F, "fractional_max_pool3d fractional_max_pool3d_with_indices"),
    *named(nn.init, "normal_ uniform_ trunc_normal_ xavier_normal_ xavier_uniform_ kaiming_normal_ kaiming_uniform_"),
    *named(nn.init, "orthogonal_ sparse_"),
]
READING = named(Tensor, "item tolist __contains__ __bool__ __int__ __float__ __index__")
RECURRENT = named(torch, "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
INTERNAL = {
    "F.batch_norm": [
        *named(torch, "batch_norm native_batch_norm"),
        *named(torch.ops.aten, "batch_norm native_batch_norm"),
    ],
    "F.instance_norm": [torch.instance_norm, torch.ops.aten.instance_norm],
    "F.layer_norm": [torch.native_layer_norm, *named(torch.ops.aten, "layer_norm native_layer_norm")],
    "F.embedding": [torch.embedding, torch.ops.aten.embedding],
}
WITH_WRONG_DERIVATIVES: dict[Callable[..., Any], Callable[..., Any]] = {
    F.batch_norm: exact_batch_norm,
    F.instance_norm: exact_instance_norm,
    F.layer_norm: exact_layer_norm,
    torch.layer_norm: exact_layer_norm,
    cast(Any, torch)._weight_norm: exact_weight_norm,
    F.embedding: exact_embedding,
}
EXACT: dict[Callable[..., Any], Callable[..., Any]] = {
    **WITH_WRONG_DERIVATIVES,
    **{function: internal(function, public) for public, functions in INTERNAL.items() for function in functions},
    F.scaled_dot_product_attention: exact_attention,
    F.multi_head_attention_forward: exact_multi_head_attention,
    F.hardsigmoid: exact_hardsigmoid,
    F.adaptive_avg_pool2d: exact_adaptive_pooling,
    F.rrelu: exact_rrelu,
    **{function: exact_rrelu for function in (torch.rrelu, torch.rrelu_)},
    **{function: no_dropout(function) for function in DROPOUTS},
    **{function: drawing(function) for function in DRAWING},
    **{function: never(function) for function in NEVER},
    **{function: looped_only(function, "has no vmap rule;") for function in RECURRENT},
    **{function: looped_only(function, READS) for function in READING},
}
