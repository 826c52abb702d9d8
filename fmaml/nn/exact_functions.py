"""Torch's functions whose derivatives are wrong, or which keep state, replaced or refused wherever a module calls them.

A `TorchFunctionMode` sees each call of a torch function, so a norm is found in a layer of torch.nn, in a layer of the
user's own and in a plain call of `torch.nn.functional` alike. Replaced: norms and weight norm, whose derivatives are
wrong in torch 2.13 from the second on under vmap, or from the third on; embeddings with a padding index, whose gradient
is wrong under vmap. Refused: what draws from the global random generator, what changes a parameter or a running
statistic in place, and recurrent layers under vmap, for which torch has no rule.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .fast.layout import is_vmapped
from .norms import batch_norm, channelwise, standardise_instances, standardise_last


class ExactFunctions(TorchFunctionMode):
    """Calls the functions below in place of torch's."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return EXACT.get(func, func)(*args, **(kwargs or {}))


def refuse(function: str, reason: str) -> NoReturn:
    raise ValueError(f"from_module: the module calls {function}, which {reason}")


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
            refuse(
                f"F.{function.__name__}(training=True)", "draws from the global generator; call .eval() first, or p=0"
            )
        return input

    return exact


def exact_attention(*args: Any, **kwargs: Any) -> Tensor:
    """`F.scaled_dot_product_attention` without dropout."""
    if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0:
        refuse("F.scaled_dot_product_attention(dropout_p=..)", "draws from the global generator; call .eval() first")
    return F.scaled_dot_product_attention(*args, **kwargs)


def looped_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """A recurrent layer, for which torch has no vmap rule."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) and is_vmapped(value) for value in args):
            refuse(f"torch.{function.__name__}", 'has no vmap rule; use batching="loop", or layers of nn.Linear')
        return function(*args, **kwargs)

    return exact


DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
RECURRENT = (
    *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell),
)
EXACT: dict[Callable[..., Any], Callable[..., Any]] = {
    F.batch_norm: exact_batch_norm,
    F.instance_norm: exact_instance_norm,
    F.layer_norm: exact_layer_norm,
    torch.layer_norm: exact_layer_norm,
    cast(Any, torch)._weight_norm: exact_weight_norm,
    F.embedding: exact_embedding,
    F.scaled_dot_product_attention: exact_attention,
    **{function: no_dropout(function) for function in DROPOUTS},
    **{function: looped_only(function) for function in RECURRENT},
}
