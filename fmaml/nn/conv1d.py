"""The few-shot network for signals, the counterpart of `conv4`."""

from typing import Literal

import torch
from einops import reduce  # pyright: ignore[reportUnknownVariableType]
from torch import Generator, Tensor
from torch.nn import functional as F

from ..setting_types import NORM_GROUPS, Depth, Size
from ..types import Model, Params
from .layers import check_pool_and_norm, conv_layers_init, linear_init, named_model, normalise


def conv1d(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    width: Size = 64,
    layers: Depth = 4,
    kernel: Size = 3,
    pool: Literal["stride", "max"] = "stride",
    norm: Literal["batch", "stored", "group", "layer", "none"] = "batch",
) -> Model:
    """Convolutions over time with norm, ReLU and halving of the signal; [n, channels, length] -> [n, outputs].

    A convolution has a bias only with norm="none": otherwise the norm's shift has the same effect.

    Args:
        inputs: (channels, length) of a signal.
        outputs: the number of outputs, such as the number of classes.
        width: filters of each convolution.
        layers: the number of convolutions; each halves the signal.
        kernel: the length of a filter in samples, odd.
        pool: "stride" halves the signal by the convolution's stride and gives the head the mean over time. "max" halves
            it by max-pooling and gives the head all positions.
        norm: as in `fmaml.conv4`.

    Returns:
        A model with parameters conv1.weight, norm1.weight, norm1.bias, .., head.weight, head.bias.

    Raises:
        ValueError: ``inputs`` is not the shape of a signal, or too short for the halvings. An even ``kernel``; an
            unknown ``pool`` or ``norm``; with group norm a ``width`` that is not a multiple of 8.

    >>> import torch, fmaml
    >>> model = fmaml.conv1d(inputs=(3, 100), outputs=5, width=8)
    >>> model.apply(model.init(torch.Generator()), torch.zeros(10, 3, 100)).shape
    torch.Size([10, 5])
    """
    check_pool_and_norm("conv1d", pool, norm, width)
    if len(inputs) != 2:
        raise ValueError(f"conv1d: inputs = {inputs}: needs signals, (channels, length); use conv4 for images, or mlp")
    channels, length = inputs
    check_lengths(length, layers, kernel)
    if norm == "group" and pool == "stride" and width == NORM_GROUPS and length == 1 << layers:
        raise ValueError(
            f"conv1d: norm = 'group' with width = {width} reduces signals of {length} samples to a constant; "
            "give a larger width, fewer layers, or norm = 'layer'"
        )
    features = width if pool == "stride" else width * (length >> layers)
    stride = 2 if pool == "stride" else 1

    def init(generator: Generator) -> Params:
        convolutions = conv_layers_init(layers, channels, width, (kernel,), norm, generator)
        return convolutions | linear_init("head", features, outputs, generator)

    def apply(params: Params, x: Tensor) -> Tensor:
        for i in range(1, layers + 1):  # x: [n, channels or width, length]
            weight, bias = params[f"conv{i}.weight"], params.get(f"conv{i}.bias")
            x = F.conv1d(x, weight, bias, stride=stride, padding=kernel // 2)
            x = torch.relu(normalise(norm, params, f"norm{i}", x))
            x = F.max_pool1d(x, 2) if pool == "max" else x
        x = reduce(x, "n c l -> n c", "mean") if pool == "stride" else x.flatten(1)  # [n, features]
        return F.linear(x, params["head.weight"], params["head.bias"])

    return named_model(init, apply)


def check_lengths(length: int, layers: int, kernel: int) -> None:
    """ValueError for an even kernel, or a signal too short for ``layers`` halvings."""
    if kernel % 2 == 0:
        raise ValueError(f"conv1d: kernel = {kernel}: must be odd; give {kernel + 1}")
    if length < 1 << layers:
        fitting = length.bit_length() - 1
        cure = f"give layers = {fitting} at most, or longer signals" if fitting else "use mlp"
        raise ValueError(f"conv1d: signals of {length} samples vanish in {layers} halvings; {cure}")
