"""Batch norm of many tasks at once, as one operator that is closed under differentiation.

torch's own batching rule applies scale and shift in passes of their own, and copies what is laid out channels last, in
which a CPU's convolutions are fastest. Here the tasks become channels, [n, tasks * channels, ...], for one call of the
kernel forward and one backward. With r = 1 / sqrt(var x + eps), h = r (x - mean x) and P t = t - mean t - h mean(t h),

    y = scale h + shift;      of <g, y> the gradients are   gx = scale r P g,   gscale = sum g h,   gshift = sum g

for each channel. The gradient of those three in turn is written out below in operations that torch differentiates.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .layout import channels_of_all, vectors_of_all


def batch_norm_of_tasks(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """Normalise each channel by the statistics of this very batch, then scale and shift; x [n, channels, ...]."""
    return Value.apply(x, scale, shift, eps)[0]  # type: ignore[index]


class Value(Function):
    """(y, mean x, r)."""

    @staticmethod
    def forward(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Any:
        return torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, scale, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, scale, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return *Gradient.apply(grads[0], *ctx.saved_tensors, ctx.eps), None  # type: ignore[misc]

    @staticmethod
    def vmap(info: Any, dims: tuple, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple:
        tasks = info.batch_size
        vectors = vectors_of_all(tasks, dims[1:3], scale, shift)
        y, *statistics = Value.apply(channels_of_all(tasks, dims[0], x), *vectors, eps)  # type: ignore[misc]
        return (y.unflatten(1, (tasks, -1)), *(t.unflatten(0, (tasks, -1)) for t in statistics)), (1, 0, 0)


class Gradient(Function):
    """(gx, gscale, gshift)."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, scale: Tensor, mean: Tensor, r: Tensor, eps: float) -> Any:
        every = [True, True, True]
        return torch.ops.aten.native_batch_norm_backward(g, x, scale, None, None, mean, r, True, eps, every)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        g, x, scale, _, _, ctx.eps = inputs
        ctx.save_for_backward(g, x, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        """Of <u, gx> + <v, gscale> + <w, gshift>, with h and r as functions of x."""
        g, x, scale = ctx.saved_tensors
        shape = (-1,) + (1,) * (x.ndim - 2)
        u, (v, w, scale) = grads[0], (t.view(shape) for t in (*grads[1:], scale))
        centred = x - mean(x)
        r = (mean(centred.square()) + ctx.eps).rsqrt()
        h = r * centred
        gh, uh = mean(g * h), mean(u * h)
        pg, pu = g - mean(g) - h * gh, u - mean(u) - h * uh
        upg = mean(u * pg)
        dg = scale * r * pu + v * h + w
        dh = v * g - scale * r * (u * gh + g * uh)
        dx = r * (dh - mean(dh) - h * mean(dh * h)) - scale * r * r * upg * h
        dscale = (r * upg).flatten() * (x.numel() // x.shape[1])
        return dg, dx, dscale, None, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple, g: Tensor, x: Tensor, *vectors_and_eps: Any) -> tuple:
        tasks, (*vectors, eps) = info.batch_size, vectors_and_eps
        images = (channels_of_all(tasks, dim, t) for dim, t in zip(dims, (g, x), strict=False))
        vectors = vectors_of_all(tasks, dims[2:5], *vectors)
        gx, *sums = Gradient.apply(*images, *vectors, eps)  # type: ignore[misc]
        return (gx.unflatten(1, (tasks, -1)), *(t.unflatten(0, (tasks, -1)) for t in sums)), (1, 0, 0)


def mean(x: Tensor) -> Tensor:
    """Of each channel, x [n, channels, ...]."""
    return x.mean((0, *range(2, x.ndim)), keepdim=True)
