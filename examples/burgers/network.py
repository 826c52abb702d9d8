"""A network for u(x, t) that obeys the initial and the boundary values."""

import math

import torch
from torch import Generator, Tensor

import fmaml
from fmaml.setting_types import Rate, Widths, needs


@needs("own_loss")
def field(
    *, inputs: tuple[int, ...], outputs: int, hidden: Widths = (48, 48), sharpness: Rate = 4.0, told: bool = False
) -> fmaml.Model:
    """Make a network (x, t, nu) [n, 3] -> u [n, 1] with u = -sin(pi x) at t = 0, and u = 0 at x = -1 and 1.

    u = -sin(pi x) + t (1 - x^2) N(x, t), where N is a perceptron with tanh. Its first layer begins ``sharpness`` times
    as steep as in `fmaml.mlp`, and biased so that its steps lie all over the domain. N sees the viscosity only if
    ``told``; otherwise the network learns it from the residuals alone.
    """
    perceptron = fmaml.mlp(inputs=(2 + told,), outputs=outputs, hidden=hidden, activation="tanh")

    def init(generator: Generator) -> fmaml.Params:
        params = perceptron.init(generator)
        steep = sharpness * params["layer1.weight"]
        spread = 2 * torch.rand(steep.shape[0], generator=generator) - 1
        return {**params, "layer1.weight": steep, "layer1.bias": spread * steep.norm(dim=1)}

    def apply(params: fmaml.Params, points: Tensor) -> Tensor:
        x, t, viscosity = points.split(1, 1)
        known = [viscosity.log()] if told else []
        inner = perceptron.apply(params, torch.cat([x, 4 * t - 1, *known], 1))
        return -(math.pi * x).sin() + t * (1 - x * x) * inner

    return fmaml.Model(init, apply)
