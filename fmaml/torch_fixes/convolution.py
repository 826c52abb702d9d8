"""A convolution of channels-last images, as three operators that are each other's derivatives.

With images x, filters w and gradients g the number <g, x * w> is linear in each of the three. So each derivative of
each order is one of

    y = x * w,      the gradient of <g, x * w> with respect to x,      and that with respect to w.

torch's second derivative instead takes convolutions with filters as large as the images, and computes gradients of
images that nobody asked for. Its first derivative is as good and costs less Python, so it stays.

Under vmap the tasks are groups: images are [n, tasks * channels, height, width]. torch's batching rule does so only if
each task has filters of its own. With filters that all share it copies the images into its usual layout.

torch gives a gradient of the filters the layout of the images. In a second derivative it serves as filters, and an
operation on mixed layouts is slow. So it gets torch's usual layout here.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from .grad_levels import in_forward_mode, order
from .layout import Dims, applied, channels_of_all, is_laid_out, is_vmapped, split_tasks

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The shapes of images and filters, and the options of a convolution.

    One object that is no tuple, because `torch.func` takes tuples apart in Python again and again.
    """

    images: tuple[int, ...]
    filters: tuple[int, ...]
    options: tuple[Pair, Pair, Pair]  # stride, padding, dilation
    groups: int

    def of_all(self, tasks: int) -> "Geometry":
        """That of all tasks at once."""
        (n, channels, *size), (filters, *others) = self.images, self.filters
        images, filters = (n, tasks * channels, *size), (tasks * filters, *others)
        return Geometry(images, filters, self.options, tasks * self.groups)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, input [n, channels, height, width]; by the operator below if it saves time."""
    if torch.compiler.is_compiling() or input.device.type != "cpu" or not is_laid_out(input):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    shared = is_vmapped(input) and not is_vmapped(weight)
    plain = (
        (order(weight) < 2 and not shared)
        or input.ndim != 4
        or isinstance(padding, str)
        or torch.is_autocast_enabled("cpu")
        or in_forward_mode()
    )
    if plain:
        weight = applied(UsualGradient, weight) if _pair(stride) == (1, 1) and is_vmapped(input) else weight
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    options = _pair(stride), _pair(padding), _pair(dilation)
    y: Tensor = applied(Convolution, input, weight, Geometry(tuple(input.shape), tuple(weight.shape), options, groups))
    return y if bias is None else y + bias.view(-1, 1, 1)


class UsualGradient(Function):
    """The identity, with a gradient in torch's usual layout."""

    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0].contiguous()

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Tensor) -> Tensor:
        return grad_inputs[0].view_as(grad_inputs[0])

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Tensor) -> tuple[Tensor, int | None]:
        return applied(UsualGradient, *args), in_dims[0]


class Convolution(Function):
    """The operator (x, w) -> x * w."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        return F.conv2d(x, w, None, *geometry.options, geometry.groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, ctx.geometry = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, w) = grad_outputs, ctx.saved_tensors
        of_x, of_w, _ = ctx.needs_input_grad
        dx = applied(InputGradient, g, w, ctx.geometry) if of_x else None
        return dx, applied(FilterGradient, g, x, ctx.geometry) if of_w else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Tensor, int]:
        tasks, (x, w, geometry) = info.batch_size, args
        x, w = channels_of_all(tasks, in_dims[0], x), _filters_of_all(tasks, in_dims[1], w)
        return split_tasks(applied(Convolution, x, w, geometry.of_all(tasks)), tasks, 1), 1


class InputGradient(Function):
    """The operator (g, w) -> the gradient of <g, x * w> with respect to x."""

    @staticmethod
    def forward(g: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        # only its shape is read
        x = torch.empty(geometry.images, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)
        return _gradients(g, x, w, geometry, (True, False))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, w, ctx.geometry = inputs
        ctx.save_for_backward(g, w)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (g, w) = grad_outputs, ctx.saved_tensors
        of_g, of_w = ctx.needs_input_grad[:2]
        dg = applied(Convolution, x, w, ctx.geometry) if of_g else None
        return dg, applied(FilterGradient, g, x, ctx.geometry) if of_w else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Tensor, int]:
        tasks, (g, w, geometry) = info.batch_size, args
        g, w = channels_of_all(tasks, in_dims[0], g), _filters_of_all(tasks, in_dims[1], w)
        return split_tasks(applied(InputGradient, g, w, geometry.of_all(tasks)), tasks, 1), 1


class FilterGradient(Function):
    """The operator (g, x) -> the gradient of <g, x * w> with respect to w."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        w = g.new_empty(geometry.filters)  # only its shape is read
        return _gradients(g, x, w, geometry, (False, True))[1].contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        g, x, ctx.geometry = inputs
        ctx.save_for_backward(g, x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (w,), (g, x) = grad_outputs, ctx.saved_tensors
        of_g, of_x = ctx.needs_input_grad[:2]
        dg = applied(Convolution, x, w, ctx.geometry) if of_g else None
        return dg, applied(InputGradient, g, w, ctx.geometry) if of_x else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Tensor, int]:
        tasks, (g, x, geometry) = info.batch_size, args
        images = (channels_of_all(tasks, dim, t) for dim, t in zip(in_dims, (g, x), strict=False))
        return split_tasks(applied(FilterGradient, *images, geometry.of_all(tasks)), tasks, 0), 0


def _gradients(g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool]) -> tuple[Tensor, ...]:
    """The gradients of <g, x * w> with respect to x and w, those which are wanted."""
    g = g.contiguous(memory_format=torch.channels_last)
    options = *geometry.options, False, (0, 0), geometry.groups, (*wanted, False)
    return torch.ops.aten.convolution_backward(g, x, w, None, *options)


def _filters_of_all(tasks: int, dim: int | None, w: Tensor) -> Tensor:
    """[filters, ...] of each task, stacked at ``dim`` (None: shared), as [tasks * filters, ...]."""
    return (w.expand(tasks, *w.shape) if dim is None else w.movedim(dim, 0)).flatten(0, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
