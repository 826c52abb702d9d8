"""A SIREN (Sitzmann et al., arXiv 2006.09661): a perceptron with sines, for functions of a place."""

import math
from itertools import pairwise

from torch import Generator, Tensor, rand
from torch.nn.functional import linear

import fmaml
from fmaml.setting_types import Rate, Widths


def siren(*, inputs: tuple[int, ...], outputs: int, hidden: Widths = (64, 64, 64), w0: Rate = 30.0) -> fmaml.Model:
    """Make a network [n, inputs] -> [n, outputs] with layers sin(w0 (W x + b)), and a last one W x + b.

    W and b begin uniform up to 1 / inputs in the first layer, and up to sqrt(6 / width) / w0 in the others. So the
    input of each later sine begins with a standard deviation near 1, whatever the depth (section 3.2).
    """
    sizes = [*inputs, *hidden, outputs]

    def init(generator: Generator) -> fmaml.Params:
        params = {}
        for i, (before, after) in enumerate(pairwise(sizes), 1):
            most = math.sqrt(6 / before) / w0 if i > 1 else 1 / before
            for name, shape in (("weight", (after, before)), ("bias", (after,))):
                params[f"layer{i}.{name}"] = most * (2 * rand(shape, generator=generator) - 1)
        return params

    def apply(params: fmaml.Params, x: Tensor) -> Tensor:
        for i in range(1, len(sizes)):
            x = linear(x, params[f"layer{i}.weight"], params[f"layer{i}.bias"])
            x = (w0 * x).sin() if i < len(sizes) - 1 else x
        return x

    return fmaml.Model(init, apply)
