"""Replace or refuse functions of torch that have wrong derivatives or keep state, wherever a module calls them.

A `TorchFunctionMode` sees each call of a torch function, in layers of torch.nn, in a user's own layers and in plain
calls.

Replaced, because of errors in torch 2.13:
- Norms and weight norm: their derivatives are wrong from the second order on under vmap, or from the third.
- Embeddings with a padding index: their gradient is wrong under vmap.
- The hard sigmoid has no second derivative.

Refused:
- The low-level functions of torch beneath torch.nn.functional.
- Random numbers, once they are used.
- Changes of a parameter or a running statistic in place.
- Under vmap: recurrent layers, and Python code that reads a number of a task. torch has no rule for them.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any, ClassVar, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .layout import is_vmapped
from .norms import batch_norm, channelwise, standardise_instances, standardise_last

TorchFunction: TypeAlias = Callable[..., Any]


class ExactFunctions(TorchFunctionMode):
    """Call the functions of a table instead of torch's; by default all those below."""

    def __init__(self, table: Mapping[TorchFunction, TorchFunction] | None = None) -> None:
        super().__init__()
        self.table = EXACT if table is None else table

    def __torch_function__(
        self, func: TorchFunction, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
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
    """`F.batch_norm` by the statistics of the batch, or by stored ones, without updating them."""
    if not training:
        return scale_and_shift(by_stored_statistics(input, running_mean, running_var, eps), weight, bias)
    if running_mean is not None:
        refuse(
            "F.batch_norm(training=True)", f"updates running statistics; give None for them, or training={IN_TRAINING}"
        )
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
    """`F.instance_norm` by the statistics of each example, or by stored ones, without updating them."""
    if not use_input_stats:
        return scale_and_shift(by_stored_statistics(input, running_mean, running_var, eps), weight, bias)
    if running_mean is not None:
        refuse("F.instance_norm", f"updates running statistics; give None for them, or use_input_stats={IN_TRAINING}")
    return scale_and_shift(standardise_instances(input, eps), weight, bias)


def by_stored_statistics(x: Tensor, mean: Tensor | None, var: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) for each channel: an affine map with constant coefficients."""
    if mean is None or var is None:
        refuse("a norm with training=False", "has no stored statistics; give them, or the statistics of the batch")
    scale = (var + eps).rsqrt()
    return channelwise(x, scale, -mean * scale)


def scale_and_shift(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """weight * x + bias by channel, if they are given; x [n, channels, ...]."""
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
    """`torch._weight_norm` in plain operations: g v / |v|, with the norm over all axes except ``dim``."""
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
    """`F.embedding`; a mask keeps the gradient from the row of the padding index."""
    if max_norm is not None:
        refuse("F.embedding(max_norm=..)", "changes its weight in place; build the layer with max_norm=None")
    if scale_grad_by_freq:
        refuse("F.embedding(scale_grad_by_freq=True)", "has a wrong derivative under vmap; build the layer without")
    found = F.embedding(input, weight)
    if padding_idx is None:
        return found
    padded = (input == padding_idx % weight.shape[0])[..., None]
    return torch.where(padded, found.detach(), found)


def no_dropout(function: TorchFunction, keyed: str = "") -> TorchFunction:
    """The dropout function, refused unless it drops nothing. ``keyed`` is one more cure."""
    owner = "F" if function.__module__ == F.__name__ else "torch"

    def exact(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool | None = None
    ) -> Any:
        if (training if train is None else train) and p > 0:  # torch's name is train, that of F is training
            refuse(
                f"{owner}.{function.__name__}(training=True)", f"{DRAWS}; give p=0{keyed}, or training={IN_TRAINING}"
            )
        return function(input, p, False)

    return exact


def exact_attention(*args: Any, **kwargs: Any) -> Tensor:
    """`F.scaled_dot_product_attention` without dropout."""
    if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0:
        refuse("F.scaled_dot_product_attention(dropout_p=..)", f"{DRAWS}; give dropout_p=0")
    return F.scaled_dot_product_attention(*args, **kwargs)


def exact_multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """`F.multi_head_attention_forward` without dropout."""
    given = signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    if given["dropout_p"] > 0 and given.get("training", True):
        refuse("F.multi_head_attention_forward(training=True)", f"{DRAWS}; give dropout_p=0, or training={IN_TRAINING}")
    return F.multi_head_attention_forward(*args, **kwargs)


def exact_hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """`F.hardsigmoid` in plain operations: relu6(x + 3) / 6."""
    return F.relu6(input + 3) / 6


def exact_sinc(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`torch.sinc` with its derivatives at 0, by a series near 0: torch's derivatives there are NaN."""
    z = torch.pi * input
    near = z.abs() < 0.3
    square = torch.where(near, z, 0).square()
    series = torch.ones_like(square)
    for factor in (156, 110, 72, 42, 20, 6):  # 1 - z^2 / 6 (1 - z^2 / 20 (..)), to z^12
        series = 1 - square / factor * series
    far = torch.where(near, 1, z)
    return torch.where(near, series, far.sin() / far)


def without_memory_format(function: TorchFunction) -> TorchFunction:
    """The function without a memory format under vmap, where torch cannot apply it; the numbers are the same."""

    def exact(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if is_vmapped(input):
            args = tuple(value for value in args if not isinstance(value, torch.memory_format))
            kwargs.pop("memory_format", None)
        return function(input, *args, **kwargs)

    return exact


def refuse_hook(function: TorchFunction) -> TorchFunction:
    """Refuse a hook on the gradient of a tensor, unless torch sets it, such as its counter of operations."""

    def set_hook(*args: Any, **kwargs: Any) -> Any:
        if called_by_torch():
            return function(*args, **kwargs)
        refuse(
            f"Tensor.{function.__name__}",
            "torch.func does not call as autograd does; to scale a gradient by c, write c * h + (1 - c) * h.detach()",
        )

    return set_hook


def called_by_torch() -> bool:
    """Whether the call of the replaced function comes from torch's own code."""
    frame = inspect.currentframe()
    while frame and frame.f_globals["__name__"].startswith((__name__, "torch.overrides", "torch._tensor")):
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith("torch.")


def exact_adaptive_pooling(input: Tensor, output_size: Any) -> Tensor:
    """`F.adaptive_avg_pool2d`; to one position by the mean, which torch can vmap in every memory layout."""
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return F.adaptive_avg_pool2d(input, output_size)


def exact_rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """`F.rrelu` with the mean slope, as in testing."""
    if training:
        refuse("F.rrelu(training=True)", f"{DRAWS}; call F.leaky_relu, or give training={IN_TRAINING}")
    return F.leaky_relu(input, (lower + upper) / 2)


class Undrawn(Tensor):
    """A stand-in for a random number: its use is refused. A subclass names the random function."""

    function: ClassVar[str]

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        refuse(cls.function, DRAWN)


def refuse_result(function: TorchFunction) -> TorchFunction:
    """Refuse the use of a random function's result, not its call.

    Some networks draw a number in every call but use it only in training mode, as Wav2Vec2 does to drop layers.
    """
    undrawn = type("Undrawn", (Undrawn,), {"function": f"torch.{function.__name__}"})
    return lambda *args, **kwargs: torch.empty(()).as_subclass(undrawn)


def refuse_call(function: TorchFunction) -> TorchFunction:
    """Refuse the call of a random function."""
    return lambda *args, **kwargs: refuse(function.__name__, DRAWN)


def refuse_internal(function: TorchFunction, public: str) -> TorchFunction:
    """Refuse a function beneath torch.nn.functional with wrong derivatives; name the ``public`` one instead."""
    reason = f"has wrong derivatives under vmap, or from the third order on; call {public}"
    return lambda *args, **kwargs: refuse(f"torch.{function.__name__}", reason)


def refuse_vmap(function: TorchFunction, why: str) -> TorchFunction:
    """Refuse a function under vmap, because torch has no rule for it."""

    def exact(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) and is_vmapped(value) for value in args):
            refuse(function.__name__, f'{why} use batching="loop", and `fmaml.transductive` to score')
        return function(*args, **kwargs)

    return exact


def functions_of(owner: Any, names: str) -> list[TorchFunction]:
    """The functions of a module or a class with these names, separated by spaces."""
    return [getattr(owner, name) for name in names.split()]


IN_TRAINING = "self.training and call .eval()"
DRAWS = "draws from the global generator"
DRAWN = f"{DRAWS}; give the numbers as a part of x, or draw only `if self.training` and call .eval()"
READS = (
    "reads a number of a task, which vmap cannot; for transformers give an additive attention mask [n, 1, length, "
    "length], or load a decoder with attn_implementation='eager'; else"
)
WITH_WRONG_DERIVATIVES: dict[TorchFunction, TorchFunction] = {
    F.batch_norm: exact_batch_norm,
    F.instance_norm: exact_instance_norm,
    F.layer_norm: exact_layer_norm,
    torch.layer_norm: exact_layer_norm,
}
COPIES = [*functions_of(Tensor, "to contiguous clone"), torch.clone]
HOOKS_ON_GRADIENTS = functions_of(Tensor, "register_hook register_post_accumulate_grad_hook")
OWN_CODE: dict[TorchFunction, TorchFunction] = {  # replaced in any code, and right for any order of derivatives
    cast(Any, torch)._weight_norm: exact_weight_norm,
    F.embedding: exact_embedding,
    F.hardsigmoid: exact_hardsigmoid,
    cast(Any, torch).sinc: exact_sinc,
    cast(Any, Tensor).sinc: exact_sinc,
    cast(Any, Tensor).data.__get__: Tensor.detach,  # torch.func removes one level of derivatives from .data, not all
    cast(Any, torch.special).sinc: exact_sinc,
    **{function: without_memory_format(function) for function in COPIES},
    **{function: refuse_hook(function) for function in HOOKS_ON_GRADIENTS},
}
REPLACED: dict[TorchFunction, TorchFunction] = {
    **WITH_WRONG_DERIVATIVES,
    **OWN_CODE,
    F.scaled_dot_product_attention: exact_attention,
    F.multi_head_attention_forward: exact_multi_head_attention,
    F.adaptive_avg_pool2d: exact_adaptive_pooling,
    **dict.fromkeys((F.rrelu, torch.rrelu, torch.rrelu_), exact_rrelu),
}
aten = torch.ops.aten
# (makes the replacement of a function, module or class of the functions, their names)
HANDLERS: list[tuple[Callable[[TorchFunction], TorchFunction], Any, str]] = [
    (partial(no_dropout, keyed=", or from_module(dropout='keyed')"), F, "dropout dropout1d dropout2d dropout3d"),
    (partial(no_dropout, keyed=", or from_module(dropout='keyed')"), torch, "dropout"),
    (no_dropout, F, "alpha_dropout feature_alpha_dropout"),
    (no_dropout, torch, "dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_ native_dropout"),
    (no_dropout, torch, "feature_alpha_dropout feature_alpha_dropout_"),
    (refuse_result, torch, "rand randn randint randperm rand_like randn_like randint_like"),
    (refuse_result, torch, "bernoulli normal multinomial poisson"),
    (refuse_result, Tensor, "bernoulli multinomial"),
    (refuse_call, Tensor, "bernoulli_ uniform_ normal_ random_ exponential_ geometric_ log_normal_ cauchy_"),
    (refuse_call, F, "gumbel_softmax fractional_max_pool2d fractional_max_pool2d_with_indices"),
    (refuse_call, F, "fractional_max_pool3d fractional_max_pool3d_with_indices"),
    (refuse_call, nn.init, "normal_ uniform_ trunc_normal_ xavier_normal_ xavier_uniform_ orthogonal_ sparse_"),
    (refuse_call, nn.init, "kaiming_normal_ kaiming_uniform_"),
    (partial(refuse_internal, public="F.batch_norm"), torch, "batch_norm native_batch_norm"),
    (partial(refuse_internal, public="F.batch_norm"), aten, "batch_norm native_batch_norm"),
    (partial(refuse_internal, public="F.instance_norm"), torch, "instance_norm"),
    (partial(refuse_internal, public="F.instance_norm"), aten, "instance_norm"),
    (partial(refuse_internal, public="F.layer_norm"), torch, "native_layer_norm"),
    (partial(refuse_internal, public="F.layer_norm"), aten, "layer_norm native_layer_norm"),
    (partial(refuse_internal, public="F.embedding"), torch, "embedding"),
    (partial(refuse_internal, public="F.embedding"), aten, "embedding"),
    (partial(refuse_vmap, why="has no vmap rule;"), torch, "lstm gru rnn_tanh rnn_relu"),
    (partial(refuse_vmap, why="has no vmap rule;"), torch, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    (partial(refuse_vmap, why=READS), Tensor, "item tolist __contains__ __bool__ __int__ __float__ __index__"),
]
EXACT: dict[TorchFunction, TorchFunction] = REPLACED | {
    function: handler(function) for handler, owner, names in HANDLERS for function in functions_of(owner, names)
}
