"""Ways to compute a 3x3 convolution with padding 1, whose weight may differ from task to task under vmap.

``grouped`` is torch's own: under vmap the tasks become the groups of one convolution. ``laid`` is the same of images
that lie channels last, as in `fmaml.conv4` where that pays. ``unfolded`` is a matrix product with each position's
neighbourhood (im2col), ``shifted`` a sum of nine with the image moved. ``by task`` is one plain convolution a task: the
value, the gradient of x and that of W are bilinear maps whose derivatives are each other, so three small functions with
a batching rule serve every order of differentiation.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from fmaml.nn.fast.layout import channels_last

COLOURS = 3  # channels of an image at most; what follows is laid out like the images
Conv = Callable[[Tensor, Tensor, int], Tensor]  # x [n, C, H, W], weight [O, C, 3, 3], stride -> [n, O, h, w]


def grouped(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight, stride=stride, padding=1)


def laid(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return grouped(channels_last(x) if x.shape[1] <= COLOURS else x, weight, stride)


def unfolded(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    columns = F.unfold(x, 3, padding=1, stride=stride)  # [n, C * 9, h * w]
    side = (x.shape[-1] - 1) // stride + 1
    return (weight.flatten(1) @ columns).unflatten(-1, (-1, side))


def shifted(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    height, width = ((size - 1) // stride + 1 for size in x.shape[-2:])
    padded = F.pad(x, (1, 1, 1, 1))
    moved = (
        padded[:, :, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(3)
        for j in range(3)
    )
    terms = (torch.einsum("nchw,oc->nohw", m, w) for m, w in zip(moved, weight.flatten(2).unbind(-1), strict=True))
    return sum(terms, torch.zeros((), device=x.device))


def by_task(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return Value.apply(x, weight, stride)  # type: ignore[return-value]


class Value(Function):
    """y = conv(x, W)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        return F.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, ctx.stride = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (g,), (x, weight) = grads, ctx.saved_tensors
        return (
            InputGrad.apply(g, weight, ctx.stride, x.shape[-2:]) if ctx.needs_input_grad[0] else None,
            WeightGrad.apply(x, g, ctx.stride) if ctx.needs_input_grad[1] else None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        return each_task(Value, info, in_dims, args)


class InputGrad(Function):
    """The gradient of <g, conv(x, W)> with respect to x, of ``size``."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        x = g.new_empty(1).expand(g.shape[0], weight.shape[1], *size)
        return convolution_backward(g, x, weight, stride, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        g, weight, ctx.stride, _ = inputs
        ctx.save_for_backward(g, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (d,), (g, weight) = grads, ctx.saved_tensors
        return (
            Value.apply(d, weight, ctx.stride) if ctx.needs_input_grad[0] else None,
            WeightGrad.apply(d, g, ctx.stride) if ctx.needs_input_grad[1] else None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        return each_task(InputGrad, info, in_dims, args)


class WeightGrad(Function):
    """The gradient of <g, conv(x, W)> with respect to W."""

    @staticmethod
    def forward(x: Tensor, g: Tensor, stride: int) -> Tensor:
        weight = g.new_empty(1).expand(g.shape[1], x.shape[1], 3, 3)
        return convolution_backward(g, x, weight, stride, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, g, ctx.stride = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (d,), (x, g) = grads, ctx.saved_tensors
        return (
            InputGrad.apply(g, d, ctx.stride, x.shape[-2:]) if ctx.needs_input_grad[0] else None,
            Value.apply(x, d, ctx.stride) if ctx.needs_input_grad[1] else None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        return each_task(WeightGrad, info, in_dims, args)


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, stride: int, which: int) -> Tensor:
    mask = [which == 0, which == 1, False]
    once, pair = [1, 1], [stride, stride]
    return torch.ops.aten.convolution_backward(g, x, weight, None, pair, once, once, False, [0, 0], 1, mask)[which]


def each_task(function: Any, info: Any, dims: tuple, args: tuple) -> tuple[Tensor, int]:
    """The batching rule of all three: tasks in the images where they share a weight, else one after the other."""
    (a, b), rest = args[:2], args[2:]
    if dims[1] is None and function is not WeightGrad:
        a = a.movedim(dims[0], 0)
        return function.apply(a.flatten(0, 1), b, *rest).unflatten(0, a.shape[:2]), 0
    a, b = (
        t.unbind(dim) if dim is not None else [t] * info.batch_size for t, dim in zip((a, b), dims[:2], strict=True)
    )
    return torch.stack([function.apply(*pair, *rest) for pair in zip(a, b, strict=True)]), 0


LOWERINGS: dict[str, Conv] = {
    "grouped": grouped,
    "channels last": laid,
    "unfolded": unfolded,
    "shifted": shifted,
    "by task": by_task,
}
