"""A convolution of channels-last images, with a gradient of the filters in torch's usual layout.

torch gives the gradient of the filters the layout of the images. In the backward pass through an inner step this
gradient is the filter of another convolution, and the result inherits the layout. Images of a small support set have
the usual layout, and an operation on mixed layouts is slow. So the gradient of the filters gets the usual layout here.
A strided convolution gains nothing from this (docs/decisions.md) and stays unchanged.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from .layout import Dims, applied, is_laid_out, is_vmapped


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, *args: Any, **options: Any
) -> Tensor:
    """`torch.nn.functional.conv2d`, input [n, channels, height, width]."""
    if stride in (1, (1, 1), [1, 1]) and is_vmapped(input) and is_laid_out(input):
        weight = applied(UsualGradient, weight)
    return F.conv2d(input, weight, bias, stride, *args, **options)


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
