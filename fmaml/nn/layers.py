"""Layers of the networks: parameters are a flat dict by dotted name, and the forward pass is a pure function of it."""

import math
from collections.abc import Callable, Set

import torch
from torch import Generator, Tensor

from ..losses import Apply
from ..setting_types import NORM_GROUPS
from ..torch_fixes import block
from ..torch_fixes.max_pool import max_pool
from ..torch_fixes.norms import batch_norm, group_norm, layer_norm
from ..torch_fixes.stored_norm import stored_norm
from ..types import Model, Params


def named_model(init: Callable[[Generator], Params], apply: Apply) -> Model:
    """A model that refuses the parameters of another network, which might run with a wrong result."""
    with torch.device("meta"):  # names only, without memory for the values
        names = init(Generator()).keys()

    def checked_apply(params: Params, x: Tensor) -> Tensor:
        check_names(params, names)
        return apply(params, x)

    return Model(init, checked_apply)


def check_names(params: Params, names: Set[str]) -> None:
    """ValueError unless the parameters have exactly these names."""
    if set(params) != set(names):  # sets, because torch 2.11 compiles a comparison of the views to False
        raise ValueError(f"params {sorted(set(params) ^ set(names))}: missing, or not parameters of the network")


def normalise(norm: str, params: Params, name: str, x: Tensor) -> Tensor:
    """Apply the norm layer ``name``, of kind ``norm``, to x [n, channels, ...]."""
    if norm == "none":
        return x
    scale, shift = params[f"{name}.weight"], params[f"{name}.bias"]
    if norm == "stored":
        return stored_norm(params, name, x)
    if norm == "batch":
        return batch_norm(x, scale, shift)
    return layer_norm(x, scale, shift) if norm == "layer" else group_norm(x, scale, shift, NORM_GROUPS)


def norm_and_pool(norm: str, params: Params, name: str, x: Tensor, window: int = 1, slope: float = 0.0) -> Tensor:
    """The norm layer ``name``, leaky ReLU and max-pooling by ``window`` (1: none) of x [n, channels, height, width].

    ``slope`` is that of negative values: 0 is ReLU, and 1 is none.
    """
    if norm == "batch":
        return block.norm_relu_pool(x, params[f"{name}.weight"], params[f"{name}.bias"], window, slope=slope)
    x = block.leaky_relu(normalise(norm, params, name, x), slope)
    return max_pool(x, window) if window > 1 else x


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless the ``value`` of ``name`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, choices))}")


def check_pool_and_norm(network: str, pool: str, norm: str, width: int) -> None:
    """Raise ValueError for an unknown ``pool`` or ``norm``, or a ``width`` that is no multiple of the norm's groups."""
    one_of("pool", pool, ("stride", "max"))
    one_of("norm", norm, ("batch", "stored", "group", "layer", "none"))
    if norm == "group" and width % NORM_GROUPS:
        raise ValueError(f"{network}: width = {width} must be a multiple of {NORM_GROUPS} for norm = 'group'")


def conv_layers_init(
    layers: int, channels: int, width: int, kernel: tuple[int, ...], norm: str, generator: Generator
) -> Params:
    """The initial parameters of ``layers`` convolutions, each with a norm, or with a bias if norm="none"."""
    params: Params = {}
    for i in range(1, layers + 1):
        params[f"conv{i}.weight"] = xavier((width, channels if i == 1 else width, *kernel), generator)
        params |= norm_init(f"norm{i}", width, norm) if norm != "none" else {f"conv{i}.bias": torch.zeros(width)}
    return params


def conv_init(name: str, fan_in: int, fan_out: int, generator: Generator, size: int = 3) -> Params:
    """The initial weight of a ``size`` x ``size`` convolution without bias."""
    return {f"{name}.weight": xavier((fan_out, fan_in, size, size), generator)}


def norm_init(name: str, width: int, norm: str = "batch") -> Params:
    """The initial scale 1 and shift 0 of a norm, and with norm="stored" the mean 0 and the variance 1."""
    affine = {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}
    stored = {f"{name}.running_mean": torch.zeros(width), f"{name}.running_var": torch.ones(width)}
    return affine | stored if norm == "stored" else affine


def linear_init(name: str, fan_in: int, fan_out: int, generator: Generator) -> Params:
    """The initial weight and bias of a linear layer."""
    return {f"{name}.weight": xavier((fan_out, fan_in), generator), f"{name}.bias": torch.zeros(fan_out)}


def xavier(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    if torch.get_default_device().type == "meta":  # only shapes; random numbers on meta import torch's compiler
        return torch.empty(shape)
    area = math.prod(shape[2:])
    bound = math.sqrt(6 / (area * (shape[0] + shape[1])))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
