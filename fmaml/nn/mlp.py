"""The multi-layer perceptron."""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..setting_types import Widths
from ..types import Model, Params
from .layers import linear_init, named_model, one_of


def mlp(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    hidden: Widths = (40, 40),
    activation: Literal["relu", "tanh"] = "relu",
) -> Model:
    """A multi-layer perceptron: [n, *inputs] -> [n, outputs].

    Args:
        inputs: the shape of one example; it is flattened.
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
