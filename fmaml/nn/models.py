"""Networks as (init, apply): parameters are a flat dict of dotted names, the forward pass a pure function of it."""

import math
from collections.abc import Callable, Sequence, Set
from itertools import pairwise
from typing import Annotated, Literal

import torch
from einops import reduce  # pyright: ignore[reportUnknownVariableType]
from torch import Generator, Tensor
from torch.nn import functional as F

from ..losses import Apply
from ..pickling import picklable
from ..setting_types import NORM_GROUPS, CostsMemory, Count, Size
from ..torch_fixes.convolution import conv2d
from ..torch_fixes.layout import channels_last
from ..torch_fixes.max_pool import max_pool
from ..torch_fixes.norms import batch_norm, group_norm, layer_norm
from ..types import Model, Params

LAYERS = 4


@picklable
def mlp(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Annotated[Sequence[Count], CostsMemory] = (40, 40),
    activation: Literal["relu", "tanh"] = "relu",
) -> Model:
    """A multi-layer perceptron: [n, *inputs] -> [n, outputs].

    Args:
        inputs: the shape of one example, which is flattened.
        outputs: the number of outputs.
        hidden: the widths of the hidden layers; the default is the sinusoid network of the MAML paper.
        activation: the activation function after each hidden layer, "relu" or "tanh".

    Returns:
        A model with parameters layer1.weight, layer1.bias, ..; weights are uniform as in Glorot and Bengio (2010).

    Raises:
        ValueError: an unknown ``activation``.

    Source: arXiv 1703.03400, section 5.1.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=2, hidden=[8])
    >>> model.apply(model.init(torch.Generator()), torch.zeros(10, 1)).shape
    torch.Size([10, 2])
    """
    one_of("activation", activation, ("relu", "tanh"))
    sizes = [math.prod(inputs), *hidden, outputs]
    act = {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def init(generator: Generator) -> Params:
        params: Params = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes), 1):
            params |= linear_init(f"layer{i}", fan_in, fan_out, generator)
        return params

    def apply(params: Params, x: Tensor) -> Tensor:
        h = x.flatten(1)  # [n, inputs]
        for i in range(1, len(sizes)):
            h = F.linear(h, params[f"layer{i}.weight"], params[f"layer{i}.bias"])
            h = act(h) if i < len(sizes) - 1 else h
        return h

    return named_model(init, apply)


@picklable
def conv4(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    width: Size = 64,
    pool: Literal["stride", "max"] = "stride",
    norm: Literal["batch", "group", "layer", "none"] = "batch",
) -> Model:
    """The few-shot network: four 3x3 convolutions, each normalised and rectified; [n, C, H, W] -> [n, outputs].

    A convolution has a bias only with norm="none": otherwise the norm's shift has the same effect.

    Args:
        inputs: (channels, height, width) of an image.
        outputs: the number of outputs, such as the number of classes.
        width: filters of each convolution.
        pool: "stride" halves the image by the convolution's stride and feeds the head the mean over positions (Omniglot
            in 1703.03400); "max" halves it by 2x2 max-pooling and feeds the head all positions (mini-ImageNet).
        norm: "batch" (by the statistics of the current batch), "group" (8 groups), "layer" or "none".

    Returns:
        A model with parameters conv1.weight, norm1.weight, norm1.bias, .., head.weight, head.bias.

    Raises:
        ValueError: ``inputs`` is not the shape of an image, or too small for four halvings by max-pooling; an unknown
            ``pool`` or ``norm``; with group norm, a ``width`` that is not a multiple of 8, or whose groups would each
            be a single number at the last convolution.

    Source: arXiv 1703.03400, section 5.2.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> model.apply(model.init(torch.Generator()), torch.zeros(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """
    one_of("pool", pool, ("stride", "max"))
    one_of("norm", norm, ("batch", "group", "layer", "none"))
    if len(inputs) != 3:
        raise ValueError(f"conv4: inputs = {inputs}: needs images, (channels, height, width); use mlp")
    channels, height, image_width = inputs
    features = width if pool == "stride" else width * (height >> LAYERS) * (image_width >> LAYERS)
    if features == 0:
        raise ValueError(
            f"conv4: images of {height}x{image_width} vanish in {LAYERS} poolings; at least 16x16 is needed"
        )
    if norm == "group" and width % NORM_GROUPS:
        raise ValueError(f"conv4: width = {width} must be a multiple of {NORM_GROUPS} for norm = 'group'")
    if norm == "group" and pool == "stride" and width == NORM_GROUPS and max(height, image_width) <= 1 << LAYERS:
        raise ValueError(
            f"conv4: norm = 'group' with width = {width} normalises single numbers of images of "
            f"{height}x{image_width}, and the output does not depend on them; "
            "give a larger width or larger images, or norm = 'layer'"
        )
    stride = 2 if pool == "stride" else 1

    def init(generator: Generator) -> Params:
        params: Params = {}
        for i in range(1, LAYERS + 1):
            params |= conv_init(f"conv{i}", channels if i == 1 else width, width, generator)
            params |= norm_init(f"norm{i}", width) if norm != "none" else {f"conv{i}.bias": torch.zeros(width)}
        return params | linear_init("head", features, outputs, generator)

    def apply(params: Params, x: Tensor) -> Tensor:
        if norm == "batch":
            x = channels_last(x, params["conv1.weight"])
        for i in range(1, LAYERS + 1):  # x: [n, channels or width, h, w]
            x = conv2d(x, params[f"conv{i}.weight"], params.get(f"conv{i}.bias"), stride=stride, padding=1)
            x = torch.relu(normalise(norm, params, f"norm{i}", x))
            x = max_pool(x, 2) if pool == "max" else x
        x = reduce(x, "n c h w -> n c", "mean") if pool == "stride" else x.flatten(1)  # [n, features]
        return F.linear(x, params["head.weight"], params["head.bias"])

    return named_model(init, apply)


def named_model(init: Callable[[Generator], Params], apply: Apply) -> Model:
    """A model that takes its own parameters alone: those of another network might run, and compute something else."""
    with torch.device("meta"):  # names without numbers
        names = init(Generator()).keys()

    def checked_apply(params: Params, x: Tensor) -> Tensor:
        check_names(params, names)
        return apply(params, x)

    return Model(init, checked_apply)


def check_names(params: Params, names: Set[str]) -> None:
    """ValueError unless the parameters have exactly these names."""
    if set(params) != set(names):  # compiled by torch 2.11, the views themselves are never equal
        raise ValueError(f"params {sorted(set(params) ^ set(names))}: missing, or not parameters of the network")


def normalise(norm: str, params: Params, name: str, x: Tensor) -> Tensor:
    """Apply the norm layer ``name``, of kind ``norm``, to x [n, channels, ...]."""
    if norm == "none":
        return x
    scale, shift = params[f"{name}.weight"], params[f"{name}.bias"]
    if norm == "batch":
        return batch_norm(x, scale, shift)
    return layer_norm(x, scale, shift) if norm == "layer" else group_norm(x, scale, shift, NORM_GROUPS)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value``, given for the parameter ``name``, is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, choices))}")


def conv_init(name: str, fan_in: int, fan_out: int, generator: Generator, size: int = 3) -> Params:
    """The initial weight of a convolution with filters of ``size`` x ``size``; no bias."""
    return {f"{name}.weight": xavier((fan_out, fan_in, size, size), generator)}


def norm_init(name: str, width: int) -> Params:
    """The initial scale and shift of a norm: 1 and 0."""
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def linear_init(name: str, fan_in: int, fan_out: int, generator: Generator) -> Params:
    """The initial weight and bias of a linear layer."""
    return {f"{name}.weight": xavier((fan_out, fan_in), generator), f"{name}.bias": torch.zeros(fan_out)}


def xavier(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    if torch.get_default_device().type == "meta":  # shapes alone; random numbers there would import torch's compiler
        return torch.empty(shape)
    area = math.prod(shape[2:])
    bound = math.sqrt(6 / (area * (shape[0] + shape[1])))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
