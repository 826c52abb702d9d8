"""The few-shot network for images: four convolutions."""

from typing import Literal

from einops import reduce  # pyright: ignore[reportUnknownVariableType]
from torch import Generator, Tensor
from torch.nn import functional as F

from ..setting_types import NORM_GROUPS, Size
from ..torch_fixes.convolution import conv2d
from ..torch_fixes.layout import channels_last
from ..types import Model, Params
from .layers import check_pool_and_norm, conv_layers_init, linear_init, named_model, norm_and_pool

LAYERS = 4


def conv4(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    width: Size = 64,
    pool: Literal["stride", "max"] = "stride",
    norm: Literal["batch", "stored", "group", "layer", "none"] = "batch",
) -> Model:
    """The few-shot network: four 3x3 convolutions with norm and ReLU; [n, C, H, W] -> [n, outputs].

    A convolution has a bias only with norm="none": otherwise the norm's shift has the same effect.

    Args:
        inputs: (channels, height, width) of an image.
        outputs: the number of outputs, such as the number of classes.
        width: filters of each convolution.
        pool: "stride" halves the image by the convolution's stride and gives the head the mean over positions (Omniglot
            in 1703.03400). "max" halves it by 2x2 max-pooling and gives the head all positions (mini-ImageNet).
        norm: "batch" (by the statistics of the current batch), "stored" (by those that `fmaml.pretrain` has learnt),
            "group" (8 groups), "layer" or "none".

    Returns:
        A model with parameters conv1.weight, norm1.weight, norm1.bias, .., head.weight, head.bias. With norm="stored"
        also norm1.running_mean, norm1.running_var, ..; they are constants to every gradient.

    Raises:
        ValueError: ``inputs`` is not the shape of an image, or too small for four halvings by max-pooling. An unknown
            ``pool`` or ``norm``. With group norm, ``width`` is not a multiple of 8, or the last convolution's groups
            are single numbers.

    Source: arXiv 1703.03400, section 5.2.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> model.apply(model.init(torch.Generator()), torch.zeros(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """
    check_pool_and_norm("conv4", pool, norm, width)
    if len(inputs) != 3:
        raise ValueError(f"conv4: inputs = {inputs}: needs images, (channels, height, width); use mlp")
    channels, height, image_width = inputs
    features = width if pool == "stride" else width * (height >> LAYERS) * (image_width >> LAYERS)
    if features == 0:
        raise ValueError(f"conv4: images of {height}x{image_width} vanish in {LAYERS} poolings; give 16x16 or larger")
    if norm == "group" and pool == "stride" and width == NORM_GROUPS and max(height, image_width) <= 1 << LAYERS:
        raise ValueError(
            f"conv4: norm = 'group' with width = {width} reduces images of {height}x{image_width} to a constant; "
            "give a larger width or larger images, or norm = 'layer'"
        )
    stride, window = (2, 1) if pool == "stride" else (1, 2)

    def init(generator: Generator) -> Params:
        convolutions = conv_layers_init(LAYERS, channels, width, (3, 3), norm, generator)
        return convolutions | linear_init("head", features, outputs, generator)

    def apply(params: Params, x: Tensor) -> Tensor:
        if norm in ("batch", "stored"):
            x = channels_last(x)
        for i in range(1, LAYERS + 1):  # x: [n, channels or width, h, w]
            x = conv2d(x, params[f"conv{i}.weight"], params.get(f"conv{i}.bias"), stride=stride, padding=1)
            x = norm_and_pool(norm, params, f"norm{i}", x, window)
        x = reduce(x, "n c h w -> n c", "mean") if pool == "stride" else x.flatten(1)  # [n, features]
        return F.linear(x, params["head.weight"], params["head.bias"])

    return named_model(init, apply)
