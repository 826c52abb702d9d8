"""ResNet-12, the larger network of few-shot classification, as (init, apply)."""

from itertools import pairwise
from typing import Literal

from torch import Generator, Tensor
from torch.nn import functional as F

from ..setting_types import Size
from ..torch_fixes.convolution import conv2d
from ..torch_fixes.layout import channels_last
from ..torch_fixes.max_pool import max_pool
from ..types import Model, Params
from .layers import conv_init, linear_init, named_model, norm_and_pool, norm_init

BLOCKS, CONVOLUTIONS = 4, 3
SLOPE = 0.1  # of the leaky ReLUs


def resnet12(
    *, inputs: tuple[int, ...], outputs: int, width: Size = 64, norm: Literal["batch", "stored"] = "batch"
) -> Model:
    """ResNet-12: four residual blocks of three 3x3 convolutions; [n, C, H, W] -> [n, outputs].

    Each block ends in 2x2 max-pooling. The head gets the mean over positions.

    Args:
        inputs: (channels, height, width) of an image, 16 pixels or more.
        outputs: the number of outputs, such as the number of classes.
        width: filters of the first block; the others have 2.5, 5 and 10 times as many (64, 160, 320, 640).
        norm: batch norm by the statistics of the current batch ("batch"), or by those that `fmaml.pretrain` has learnt
            ("stored").

    Returns:
        A model with parameters block1.conv1.weight, block1.norm1.weight, .., block1.shortcut.weight, .., head.weight,
        head.bias.

    Raises:
        ValueError: ``inputs`` is not the shape of an image, or too small for four halvings.

    Source: arXiv 1805.10123, appendix; widths and pooling as in arXiv 1904.03758, section 4.1, without DropBlock.

    >>> import torch, fmaml
    >>> model = fmaml.resnet12(inputs=(3, 32, 32), outputs=5, width=4)
    >>> model.apply(model.init(torch.Generator()), torch.rand(10, 3, 32, 32)).shape
    torch.Size([10, 5])
    """
    if len(inputs) != 3:
        raise ValueError(f"resnet12: inputs = {inputs}: needs images, (channels, height, width); use mlp")
    channels, height, image_width = inputs
    if min(height, image_width) < 1 << BLOCKS:
        raise ValueError(
            f"resnet12: images of {height}x{image_width} vanish in {BLOCKS} poolings; give 16x16 or larger"
        )
    widths = [channels, width, width * 5 // 2, width * 5, width * 10]

    def init(generator: Generator) -> Params:
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(widths), 1):
            for j in range(1, CONVOLUTIONS + 1):
                params |= conv_init(f"block{i}.conv{j}", fan_in if j == 1 else fan_out, fan_out, generator)
                params |= norm_init(f"block{i}.norm{j}", fan_out, norm)
            params |= conv_init(f"block{i}.shortcut", fan_in, fan_out, generator, size=1)
            params |= norm_init(f"block{i}.norm", fan_out, norm)
        return params | linear_init("head", widths[-1], outputs, generator)

    def apply(params: Params, x: Tensor) -> Tensor:
        x = channels_last(x)
        for i in range(1, BLOCKS + 1):
            x = max_pool(residual(params, f"block{i}", norm, x), 2)
            x = F.leaky_relu(x, SLOPE)  # after pooling, which takes the same maxima, it has a quarter of the work
        return F.linear(x.mean((2, 3)), params["head.weight"], params["head.bias"])

    return named_model(init, apply)


def residual(params: Params, block: str, norm: str, x: Tensor) -> Tensor:
    """Three convolutions plus a shortcut, x [n, channels, h, w] -> [n, width of the block, h, w]."""
    shortcut = conv2d(x, params[f"{block}.shortcut.weight"])
    shortcut = norm_and_pool(norm, params, f"{block}.norm", shortcut, slope=1)
    for j in range(1, CONVOLUTIONS + 1):
        x = conv2d(x, params[f"{block}.conv{j}.weight"], padding=1)
        x = norm_and_pool(norm, params, f"{block}.norm{j}", x, slope=SLOPE if j < CONVOLUTIONS else 1)
    return x + shortcut
