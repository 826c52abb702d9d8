"""How the numbers of a file become those that a network sees, and its outputs become numbers of the file's units."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..losses import Apply
from ..types import Batch, Params

Nested = list[float] | list[list[float]]  # of a shape that broadcasts against one x


class Scaling(NamedTuple):
    """x is seen as (x - x_mean) / x_scale, and a target as (y - y_mean) / y_scale."""

    x_mean: Nested
    x_scale: Nested
    y_mean: float = 0.0
    y_scale: float = 1.0
    columns: list[str] = []  # the names of the numbers of an x, in their order, if they have names
    target: str = ""  # the name of y

    def inputs(self, x: Tensor) -> Tensor:
        """What the network sees of x [n, *inputs]."""
        return (x - x.new_tensor(self.x_mean)) / x.new_tensor(self.x_scale)

    def targets(self, y: Tensor) -> Tensor:
        """What the network sees of targets that are values."""
        return (y - self.y_mean) / self.y_scale

    def support(self, batch: Batch) -> Batch:
        """What the network sees of a support set; class numbers stay as they are."""
        return Batch(self.inputs(batch.x), self.targets(batch.y) if batch.y.is_floating_point() else batch.y)

    def apply(self, apply: Apply) -> Apply:
        """The network with inputs and outputs in the file's units."""
        return lambda params, x: apply(params, self.inputs(x)) * self.y_scale + self.y_mean

    def features(self, params_to_features: Apply) -> Apply:
        """What has the network's inputs, with inputs in the file's units."""
        return lambda params, x: params_to_features(params, self.inputs(x))


def in_own_units(apply: Apply, scaling: Scaling | None) -> Apply:
    """The network with inputs and outputs in the units of its data; as it is where they were not scaled."""
    return apply if scaling is None else scaling.apply(apply)
