"""Batch norm, leaky ReLU and max-pooling as one operator that can be differentiated any number of times.

These three take little arithmetic and much memory traffic: torch writes and reads each step between them, and each term
of their second derivatives. Here each derivative makes two passes over the images, in C (`fmaml/native/block.c`). The
third derivative is that of the second one, written in torch's operations.
"""

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import debug_unwrap, vjp
from torch.nn import functional as F

from ..native.compiled_kernels import kernels
from .batch_norm import gradients_of_gradient
from .grad_levels import in_forward_mode
from .layout import Dims, applied, channels_of_all, is_laid_out, split_tasks, vectors_of_all
from .max_pool import max_pool
from .norms import batch_norm
from .support_statistics import uses_own_statistics

Several: TypeAlias = tuple[Tensor, ...]
LAST = torch.channels_last
BELOW = 128  # marks the position of a negative maximum, as in block.c
LARGEST_WINDOW = 11  # so that positions stay below that mark


@dataclass(frozen=True)
class Options:
    """The options of the operator, in one object, because `torch.func` visits each argument in Python several times."""

    window: int
    slope: float
    eps: float


def norm_relu_pool(
    x: Tensor, scale: Tensor, shift: Tensor, window: int = 1, eps: float = 1e-5, slope: float = 0.0
) -> Tensor:
    """Batch norm, leaky ReLU, and max-pooling by ``window`` (1: none); x [n, channels, height, width].

    ``slope`` is that of negative values, from 0 (ReLU) to 1 (no ReLU).
    """
    x = x.to(scale.dtype)  # a convolution under autocast gives bfloat16
    if is_fast(x, scale, shift, window):
        y, _, _, _ = applied(Block, x, scale, shift, Options(window, slope, eps))
        return y
    y = leaky_relu(batch_norm(x, scale, shift, eps), slope)
    return max_pool(y, window) if window > 1 else y


def leaky_relu(x: Tensor, slope: float) -> Tensor:
    """The leaky ReLU; a slope of 0 is ReLU, and of 1 none."""
    if slope == 1:
        return x
    return F.leaky_relu(x, slope) if slope else torch.relu(x)


def is_fast(x: Tensor, scale: Tensor, shift: Tensor, window: int) -> bool:
    """Whether the operator serves, and saves time; torch refuses scales of a wrong length."""
    if torch.compiler.is_compiling() or in_forward_mode() or x.device.type != "cpu" or not uses_own_statistics():
        return False
    fits = (
        x.ndim == 4
        and window <= LARGEST_WINDOW
        and x.dtype == scale.dtype == shift.dtype
        and x.shape[1:2] == scale.shape == shift.shape
        and min(x.shape[2:]) >= window
        and x.numel() > x.shape[1]
    )
    return fits and is_laid_out(x) and not is_traced(x) and kernels(x.dtype) is not None


def is_traced(x: Tensor) -> bool:
    """Whether x has no memory, or its operations are recorded, as by a `FakeTensorMode` or by `make_fx`."""
    modes = cast(Any, torch._C)  # pyright: ignore[reportPrivateUsage]
    keys = modes._TorchDispatchModeKey
    active = any(modes._get_dispatch_mode(key) is not None for key in (keys.FAKE, keys.PROXY))
    own, plain = (cast(Any, kind).__torch_dispatch__ for kind in (type(debug_unwrap(x)), Tensor))
    return active or own is not plain


class Pointers(ctypes.Structure):
    """The structure Block of block.c."""

    SIZES = ("n", "height", "width", "channels", "k")
    TENSORS = tuple("x scale shift mean r y place g gx gscale gshift u v w dg dx dscale means zero dead".split())
    _fields_ = [
        *((name, ctypes.c_long) for name in SIZES),
        *((name, ctypes.c_double) for name in ("eps", "slope")),
        *((name, ctypes.c_void_p) for name in TENSORS),
    ]


def _call(function: str, options: Options, **tensors: Tensor) -> None:
    """Call a function of block.c; the images among the tensors are laid out channels last, and vectors become dense."""
    tensors = {name: t if t.ndim > 1 else t.contiguous() for name, t in tensors.items()}  # one may be expanded
    x = tensors["x"]
    n, channels, height, width = x.shape
    outside = {"zero": x.new_zeros(channels), "dead": x.new_full((channels,), 255, dtype=torch.uint8)}
    pointers = {name: t.data_ptr() for name, t in (tensors | outside).items()}
    sizes = {"n": n, "height": height, "width": width, "channels": channels, "k": options.window}
    block = Pointers(**sizes, eps=options.eps, slope=options.slope, **pointers)
    getattr(kernels(x.dtype), function)(ctypes.byref(block))


def _pooled(x: Tensor, window: int, dtype: torch.dtype) -> Tensor:
    """An empty tensor for the pooled images."""
    n, channels, height, width = x.shape
    shape = n, channels, height // window, width // window
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=LAST)


def _last(*images: Tensor) -> Several:
    return tuple(x.contiguous(memory_format=LAST) for x in images)


class Block(Function):
    """The operator (x, scale, shift) -> (y, mean x, r, the positions of the maxima)."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, options: Options) -> Several:
        (x,) = _last(x)
        y, place = _pooled(x, options.window, x.dtype), _pooled(x, options.window, torch.uint8)
        mean, r = x.new_empty(len(scale)), x.new_empty(len(scale))
        _call("forward", options, x=x, scale=scale, shift=shift, mean=mean, r=r, y=y, place=place)
        return y, mean, r, place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Several) -> None:
        x, scale, _, ctx.options = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *applied(BlockGradient, grad_outputs[0], *ctx.saved_tensors, ctx.options), None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Several, Dims]:
        return _of_all(Block, info.batch_size, in_dims, args, "ivv", "ivvi")


class BlockGradient(Function):
    """The operator (g, x, scale, mean x, r, positions) -> (gx, gscale, gshift)."""

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, r: Tensor, place: Tensor, options: Options
    ) -> Several:
        g, x, place = _last(g, x, place)
        gx, gscale, gshift = torch.empty_like(x), x.new_empty(len(scale)), x.new_empty(len(scale))
        given = {"g": g, "x": x, "scale": scale, "mean": mean, "r": r, "place": place}
        _call("gradient", options, **given, gx=gx, gscale=gscale, gshift=gshift)
        return gx, gscale, gshift

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Several) -> None:
        *tensors, ctx.options = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        found = applied(BlockSecond, *grad_outputs, *ctx.saved_tensors, ctx.options)
        return *found, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Several, Dims]:
        return _of_all(BlockGradient, info.batch_size, in_dims, args, "iivvvi", "ivv")


class BlockSecond(Function):
    """The operator (u, v, w, g, x, scale, mean x, r, positions) -> (dg, dx, dscale).

    They are the gradients of <u, gx> + <v, gscale> + <w, gshift> with respect to g, x and scale.
    """

    @staticmethod
    def forward(u: Tensor, v: Tensor, w: Tensor, g: Tensor, x: Tensor, *others: Any) -> Several:
        scale, mean, r, place, options = others
        u, g, x, place = _last(u, g, x, place)
        dg, dx, dscale = torch.empty_like(g), torch.empty_like(x), x.new_empty(len(scale))
        given = {"u": u, "v": v, "w": w, "g": g, "x": x}
        given |= {"scale": scale, "mean": mean, "r": r, "place": place}
        _call("second", options, **given, dg=dg, dx=dx, dscale=dscale)
        return dg, dx, dscale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Several) -> None:
        *tensors, _, _, place, ctx.options = inputs
        ctx.save_for_backward(*tensors, place)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, place = ctx.saved_tensors
        second = partial(_second, place=place, options=ctx.options)
        pull = cast(Any, vjp(second, *tensors)[1])
        return *pull(grad_outputs), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Several, Dims]:
        return _of_all(BlockSecond, info.batch_size, in_dims, args, "ivviivvvi", "iiv")


def _of_all(
    function: type[Function], tasks: int, in_dims: Dims, args: tuple[Any, ...], given: str, found: str
) -> tuple[Several, Dims]:
    """Apply an operator to all tasks at once. Its arguments and its results are images, "i", or vectors, "v"."""
    together = (
        channels_of_all(tasks, dim, t) if kind == "i" else next(vectors_of_all(tasks, (dim,), (t,)))
        for kind, dim, t in zip(given, in_dims, args, strict=False)
    )
    results = applied(function, *together, *args[len(given) :])
    dims = tuple(1 if kind == "i" else 0 for kind in found)
    return tuple(split_tasks(t, tasks, dim) for t, dim in zip(results, dims, strict=True)), dims


def _second(
    u: Tensor, v: Tensor, w: Tensor, g: Tensor, x: Tensor, scale: Tensor, place: Tensor, options: Options
) -> Several:
    """BlockSecond in torch's operations."""
    n, channels, height, width = x.shape
    window = options.window
    rows, columns = height // window, width // window
    grid = torch.arange(window * window, dtype=place.dtype, device=x.device).view(window, window).repeat(rows, columns)
    factor = torch.where(place < BELOW, x.new_ones(()), options.slope)  # of leaky ReLU, in the precision of x
    chosen = (_spread(place % BELOW, window) == grid) * _spread(factor, window)
    edges = (0, width - columns * window, 0, height - rows * window)
    z = F.pad(_spread(g, window) * chosen, edges)
    dz, dx, dscale = gradients_of_gradient(u, v, w, z, x, scale, options.eps)
    dz = dz[..., : rows * window, : columns * window] * chosen
    return dz.reshape(n, channels, rows, window, columns, window).sum((3, 5)), dx, dscale


def _spread(images: Tensor, window: int) -> Tensor:
    """Repeat each value of pooled images over its window."""
    return images.repeat_interleave(window, 2).repeat_interleave(window, 3)
