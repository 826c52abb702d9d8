"""conv4 with other ways to compute its 3x3 convolution with padding 1; under vmap the weight may differ by task.

- ``grouped``: torch's convolution. Under vmap the tasks become its groups.
- ``unfolded once``: one matrix product with each position's neighbourhood (im2col).
- ``by task``: one plain convolution per task.
- ``bmm``: im2col of all tasks, and one batched product.

For the last two, the value and the gradients with respect to x and W are bilinear maps. Their derivatives are again
these maps. So three small functions with a batching rule are enough for every order of differentiation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from fmaml.torch_fixes.norms import batch_norm
from fmaml.types import Params

Conv = Callable[[Tensor, Tensor, int], Tensor]  # x [n, C, H, W], weight [O, C, 3, 3], stride -> [n, O, h, w]
Rule: TypeAlias = Callable[[Any, Any, tuple[int | None, ...], tuple[Any, ...]], tuple[Tensor, int]]


def grouped(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x, weight, stride=stride, padding=1)


def unfolded_once(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """im2col with the images side by side, so that under vmap it is one batched product; for compilers."""
    columns = F.unfold(x, 3, padding=1, stride=stride).transpose(0, 1).flatten(1)  # [C * 9, n * h * w]
    sides = tuple(after(side, stride) for side in x.shape[-2:])
    return (weight.flatten(1) @ columns).unflatten(-1, (len(x), *sides)).transpose(0, 1)


def after(side: int, stride: int) -> int:
    """The side of an image after the convolution."""
    return (side - 1) // stride + 1


class Maps(NamedTuple):
    """y = conv(x, W), and the gradients of <g, y> with respect to x and to W."""

    value: Callable[[Tensor, Tensor, int], Tensor]  # x, W, stride
    of_input: Callable[[Tensor, Tensor, int, tuple[int, int]], Tensor]  # g, W, stride, the size of x
    of_weight: Callable[[Tensor, Tensor, int], Tensor]  # x, g, stride


def differentiable(maps: Maps, rule: Rule) -> Conv:
    """The convolution by these maps, with derivatives of every order, and a rule for vmap."""

    class Value(Function):
        forward = staticmethod(maps.value)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            x, weight, ctx.stride = inputs
            ctx.save_for_backward(x, weight)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple:
            (g,), (x, weight) = grads, ctx.saved_tensors
            return (
                OfInput.apply(g, weight, ctx.stride, tuple(x.shape[-2:])) if ctx.needs_input_grad[0] else None,
                OfWeight.apply(x, g, ctx.stride) if ctx.needs_input_grad[1] else None,
                None,
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
            return rule(Value, info, in_dims, args)

    class OfInput(Function):
        forward = staticmethod(maps.of_input)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            g, weight, ctx.stride, _ = inputs
            ctx.save_for_backward(g, weight)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple:
            (d,), (g, weight) = grads, ctx.saved_tensors
            return (
                Value.apply(d, weight, ctx.stride) if ctx.needs_input_grad[0] else None,
                OfWeight.apply(d, g, ctx.stride) if ctx.needs_input_grad[1] else None,
                None,
                None,
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
            return rule(OfInput, info, in_dims, args)

    class OfWeight(Function):
        forward = staticmethod(maps.of_weight)
        shares_weight = False  # because its second argument is a gradient, not a weight

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            x, g, ctx.stride = inputs
            ctx.save_for_backward(x, g)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple:
            (d,), (x, g) = grads, ctx.saved_tensors
            return (
                OfInput.apply(g, d, ctx.stride, tuple(x.shape[-2:])) if ctx.needs_input_grad[0] else None,
                Value.apply(x, d, ctx.stride) if ctx.needs_input_grad[1] else None,
                None,
            )

        @staticmethod
        def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
            return rule(OfWeight, info, in_dims, args)

    def conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):  # cast here, so that x, W and g have one dtype in all maps
            kind = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(kind), weight.to(kind)
        return Value.apply(x, weight, stride)  # type: ignore[return-value]

    return conv


def plain_of_input(g: Tensor, weight: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    x = g.new_empty(1).expand(g.shape[0], weight.shape[1], *size)
    return convolution_backward(g, x, weight, stride, 0)


def plain_of_weight(x: Tensor, g: Tensor, stride: int) -> Tensor:
    weight = g.new_empty(1).expand(g.shape[1], x.shape[1], 3, 3)
    return convolution_backward(g, x, weight, stride, 1)


def convolution_backward(g: Tensor, x: Tensor, weight: Tensor, stride: int, which: int) -> Tensor:
    mask = [which == 0, which == 1, False]
    once, pair = [1, 1], [stride, stride]
    return torch.ops.aten.convolution_backward(g, x, weight, None, pair, once, once, False, [0, 0], 1, mask)[which]


def each_task(function: Any, info: Any, dims: tuple, args: tuple) -> tuple[Tensor, int]:
    """A rule for vmap: join the images of all tasks if they share a weight, else loop over the tasks."""
    (a, b), rest = args[:2], args[2:]
    if dims[1] is None and getattr(function, "shares_weight", True):
        a = a.movedim(dims[0], 0)
        return function.apply(a.flatten(0, 1), b, *rest).unflatten(0, a.shape[:2]), 0
    a, b = (
        t.unbind(dim) if dim is not None else [t] * info.batch_size for t, dim in zip((a, b), dims[:2], strict=True)
    )
    return torch.stack([function.apply(*pair, *rest) for pair in zip(a, b, strict=True)]), 0


def columns(x: Tensor, stride: int) -> Tensor:
    """im2col in one copy: [.., n, C, H, W] -> [.., C * 9, n * h * w]."""
    windows = F.pad(x, (1, 1, 1, 1)).unfold(-2, 3, stride).unfold(-2, 3, stride)  # [.., n, C, h, w, 3, 3]
    k = windows.ndim - 6
    order = (*range(k), k + 1, k + 4, k + 5, k, k + 2, k + 3)
    return windows.permute(order).flatten(-3).flatten(-4, -2)


def images(cols: Tensor, n: int, channels: int, size: tuple[int, int], stride: int) -> Tensor:
    """The adjoint of `columns`: [.., C * 9, n * h * w] -> [.., n, C, H, W]."""
    lead = cols.shape[:-2]
    cols = cols.unflatten(-1, (n, -1)).movedim(-2, -3).reshape(-1, channels * 9, cols.shape[-1] // n)
    return F.fold(cols, size, 3, padding=1, stride=stride).unflatten(0, (*lead, n))


def side_by_side(y: Tensor) -> Tensor:
    """[.., n, O, h, w] -> [.., O, n * h * w]."""
    return y.transpose(-4, -3).flatten(-3)


def bmm_value(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    sides = tuple(after(side, stride) for side in x.shape[-2:])
    y = weight.flatten(-3) @ columns(x, stride)
    return y.unflatten(-1, (x.shape[-4], *sides)).transpose(-4, -3)


def bmm_of_input(g: Tensor, weight: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    cols = weight.flatten(-3).mT @ side_by_side(g)
    return images(cols, g.shape[-4], weight.shape[-3], size, stride)


def bmm_of_weight(x: Tensor, g: Tensor, stride: int) -> Tensor:
    return (side_by_side(g) @ columns(x, stride).mT).unflatten(-1, (x.shape[-3], 3, 3))


def all_tasks(function: Any, info: Any, dims: tuple, args: tuple) -> tuple[Tensor, int]:
    """A rule for vmap: the tasks are a leading axis."""
    pair = (
        t.movedim(dim, 0) if dim is not None else t.expand(info.batch_size, *t.shape)
        for t, dim in zip(args[:2], dims[:2], strict=True)
    )
    return function.apply(*pair, *args[2:]), 0


def conv4(params: Params, x: Tensor, conv: Conv) -> Tensor:
    """The strided `fmaml.conv4` with another convolution."""
    for i in range(1, 5):
        x = conv(x, params[f"conv{i}.weight"], 2)
        x = torch.relu(batch_norm(x, params[f"norm{i}.weight"], params[f"norm{i}.bias"]))
    return F.linear(x.mean((2, 3)), params["head.weight"], params["head.bias"])


LOWERINGS: dict[str, Conv] = {
    "grouped": grouped,
    "unfolded once": unfolded_once,
    "by task": differentiable(Maps(grouped, plain_of_input, plain_of_weight), each_task),
    "bmm": differentiable(Maps(bmm_value, bmm_of_input, bmm_of_weight), all_tasks),
}
