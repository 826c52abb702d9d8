"""Batch norm of many tasks at once, as one operator that can be differentiated any number of times.

torch's own batching rule applies scale and shift in separate passes. It also copies tensors in channels-last layout,
the fastest one for a CPU's convolutions. Here the tasks become channels, [n, tasks * channels, ...], so each pass,
forward or backward, is one kernel call. With r = 1 / sqrt(var x + eps), h = r (x - mean x) and
P t = t - mean t - h mean(t h),

    y = scale h + shift;      the gradients of <g, y> are   gx = scale r P g,   gscale = sum g h,   gshift = sum g

for each channel. The derivatives of these gradients are written out below in operations that torch can differentiate.
"""

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function

from .layout import Dims, applied, channels_of_all, split_tasks, vectors_of_all

Three: TypeAlias = tuple[Tensor, Tensor, Tensor]


def batch_norm_of_tasks(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Normalise each channel by the statistics of this batch, then scale and shift; x [n, channels, ...]."""
    y, _, _ = applied(BatchNorm, x, scale, shift, eps)
    return y


class BatchNorm(Function):
    """The operator (x, scale, shift) -> (y, mean x, r)."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Three:
        return torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
        x, scale, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return *applied(BatchNormGradient, grad_outputs[0], *ctx.saved_tensors, ctx.eps), None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Three, tuple[int, int, int]]:
        tasks, (x, scale, shift, eps) = info.batch_size, args
        vectors = vectors_of_all(tasks, in_dims[1:3], (scale, shift))
        found = applied(BatchNorm, channels_of_all(tasks, in_dims[0], x), *vectors, eps)
        return _by_task(tasks, found), (1, 0, 0)


class BatchNormGradient(Function):
    """The operator (g, x, scale, mean x, r) -> (gx, gscale, gshift)."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, r: Tensor, eps: float) -> Three:
        every = [True, True, True]
        return torch.ops.aten.native_batch_norm_backward(g, x, scale, None, None, mean, r, True, eps, every)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
        g, x, scale, _, _, ctx.eps = inputs
        ctx.save_for_backward(g, x, scale)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        u, v, w = grad_outputs
        return *gradients_of_gradient(u, v, w, *cast(Three, ctx.saved_tensors), ctx.eps), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *args: Any) -> tuple[Three, tuple[int, int, int]]:
        tasks, (g, x, *vectors, eps) = info.batch_size, args
        images = (channels_of_all(tasks, dim, t) for dim, t in zip(in_dims, (g, x), strict=False))
        of_channels = vectors_of_all(tasks, in_dims[2:5], tuple(vectors))
        found = applied(BatchNormGradient, *images, *of_channels, eps)
        return _by_task(tasks, found), (1, 0, 0)


def gradients_of_gradient(u: Tensor, v: Tensor, w: Tensor, g: Tensor, x: Tensor, scale: Tensor, eps: float) -> Three:
    """The gradients of <u, gx> + <v, gscale> + <w, gshift> with respect to g, x and scale; h and r depend on x."""
    v, w, scale = (t.view((-1,) + (1,) * (x.ndim - 2)) for t in (v, w, scale))
    centred = x - _mean(x)
    r = (_mean(centred.square()) + eps).rsqrt()
    h = r * centred
    gh, uh = _mean(g * h), _mean(u * h)
    pg, pu = g - _mean(g) - h * gh, u - _mean(u) - h * uh
    upg = _mean(u * pg)
    dg = scale * r * pu + v * h + w
    dh = v * g - scale * r * (u * gh + g * uh)
    dx = r * (dh - _mean(dh) - h * _mean(dh * h)) - scale * r * r * upg * h
    return dg, dx, (r * upg).flatten() * (x.numel() // x.shape[1])


def _by_task(tasks: int, found: Three) -> Three:
    """Split tasks * channels into two axes, in one tensor [n, tasks * channels, ...] and two [tasks * channels]."""
    images, first, second = found
    return split_tasks(images, tasks, 1), split_tasks(first, tasks, 0), split_tasks(second, tasks, 0)


def _mean(x: Tensor) -> Tensor:
    """The mean of each channel; x [n, channels, ...]."""
    return x.mean((0, *range(2, x.ndim)), keepdim=True)
