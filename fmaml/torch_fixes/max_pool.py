"""Max-pooling of the images of many tasks at once, as an operator that can be differentiated any number of times.

torch's batching rule copies channels-last images into its usual layout, and pooling takes twice as long there. Here the
tasks become channels, [n, tasks * channels, height, width]. With i the positions of the maxima,

    y = x[i];      the gradient of <g, y> is  gx = g at i, and 0 elsewhere;      the gradient of <u, gx> is  u[i]

for each channel. The last two are each other's derivatives.
"""

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from .grad_levels import in_forward_mode
from .layout import Dims, applied, channels_of_all, is_laid_out, is_vmapped, split_tasks

Window: TypeAlias = int | tuple[int, ...]
NO_GRADIENTS = (None,) * 4  # of the window


def max_pool(
    input: Tensor,
    kernel_size: Window,
    stride: Window | None = None,
    padding: Window = 0,
    dilation: Window = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`torch.nn.functional.max_pool2d`, by the operator below if it saves time; input [n, channels, height, width]."""
    is_channels_last = is_vmapped(input) and is_laid_out(input) and input.ndim == 4 and input.numel() > 0
    if is_channels_last and not (ceil_mode or return_indices or in_forward_mode()):
        y, _ = applied(MaxPool, input, kernel_size, () if stride is None else stride, padding, dilation)
        return y
    pool = cast(Any, F.max_pool2d)
    return pool(input, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, return_indices=return_indices)


class MaxPool(Function):
    """The operator x -> (y, i) for a window: its size, stride, padding and dilation."""

    @staticmethod
    def forward(x: Tensor, *window: Window) -> tuple[Tensor, Tensor]:
        return torch.ops.aten.max_pool2d_with_indices(x, *window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, *ctx.window = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, output[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return applied(PutAt, grad_outputs[0], *ctx.saved_tensors, *ctx.window), *NO_GRADIENTS

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        x, *window = args
        found = applied(MaxPool, channels_of_all(info.batch_size, in_dims[0], x), *window)
        return tuple(split_tasks(t, info.batch_size, 1) for t in found), (1, 1)


class AtPlaces(Function):
    """An operator of three tensors of images that is linear in the first; the others are x and i."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, x, i, *ctx.window = inputs
        ctx.save_for_backward(x, i)


class PutAt(AtPlaces):
    """The operator (g, x, i) -> g at i, and 0 elsewhere; x gives the shape and the layout."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, i: Tensor, *window: Window) -> Tensor:
        return torch.ops.aten.max_pool2d_with_indices_backward(g, x, *window, False, i)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return applied(TakeAt, grad_outputs[0], *ctx.saved_tensors, *ctx.window), None, None, *NO_GRADIENTS

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Tensor, int]:
        return _vmapped(PutAt, info.batch_size, in_dims, args)


class TakeAt(AtPlaces):
    """The operator (u, x, i) -> u[i]; its derivative needs x."""

    @staticmethod
    def forward(u: Tensor, x: Tensor, i: Tensor, *window: Window) -> Tensor:
        found = _positions(u).gather(1, _positions(i))  # [n, positions, channels]
        n, channels, height, width = i.shape
        return found.view(n, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return applied(PutAt, grad_outputs[0], *ctx.saved_tensors, *ctx.window), None, None, *NO_GRADIENTS

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Tensor, int]:
        return _vmapped(TakeAt, info.batch_size, in_dims, args)


def _vmapped(function: type[Function], tasks: int, in_dims: Dims, args: tuple[Any, ...]) -> tuple[Tensor, int]:
    """Apply an operator of three tensors of images and a window to all tasks."""
    images = (channels_of_all(tasks, dim, x) for dim, x in zip(in_dims[:3], args[:3], strict=True))
    return split_tasks(applied(function, *images, *args[3:]), tasks, 1), 1


def _positions(images: Tensor) -> Tensor:
    """[n, channels, height, width] as [n, height * width, channels]; a view if laid out channels last."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)
