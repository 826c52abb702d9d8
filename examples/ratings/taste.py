"""A user's rating of a film: the film's mean, the user's, and how the film's kind fits the user's taste."""

import torch
from torch import Generator, Tensor

import fmaml
from fmaml.setting_types import Size

from .baselines import WIDTH

SMALL = 0.1  # the size of the perceptron's outputs at first


def taste(*, inputs: tuple[int, ...], outputs: int, hidden: Size = 32, kinds: Size = 8) -> fmaml.Model:
    """Films x [n, inputs] -> stars [n, 1]: film's mean + user's mean + film's kind . user's taste.

    The film's mean is its bias plus a correction. Its kind is its factors and ``kinds`` numbers more. The correction
    and these numbers come from a perceptron of x. Only ``user.*`` belongs to a user, and is 0 before any rating.
    """
    film = fmaml.mlp(inputs=inputs, outputs=1 + kinds, hidden=[hidden], activation="tanh")

    def init(generator: Generator) -> fmaml.Params:
        return {"user.mean": torch.zeros(1), "user.taste": torch.zeros(WIDTH + kinds), **film.init(generator)}

    def apply(params: fmaml.Params, x: Tensor) -> Tensor:
        layers = {name: p for name, p in params.items() if not name.startswith("user.")}
        correction, more = (SMALL * film.apply(layers, x)).split([1, kinds], 1)
        kind = torch.cat([x[:, :WIDTH], more], 1)
        mean = x[:, WIDTH : WIDTH + 1] + correction + params["user.mean"]
        return mean + (kind @ params["user.taste"])[:, None]

    return fmaml.Model(init, apply)
