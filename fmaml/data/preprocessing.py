"""How the images and numbers of files become those that a network sees, and its outputs numbers of their units."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..losses import Apply
from ..types import Batch
from .dataset_facts import CHARACTER_SIZE

Nested = list[float] | list[list[float]]  # of a shape that broadcasts against one x


Ink: TypeAlias = Literal["auto", "dark", "light"]  # of a drawing on its paper; "auto" looks at the border


class Form(NamedTuple):
    """The form that all images are converted to. Its repr is part of cache file names: renaming it empties caches.

    ``fit`` makes an image square: "crop" takes its central square, "squeeze" scales height and width apart, "pad" puts
    it in the middle of a white square.
    """

    size: int  # height and width in pixels
    channels: int  # 1: grey, 3: red, green, blue
    fit: Literal["crop", "squeeze", "pad"] = "crop"
    invert: bool = False  # for drawings: ink 255 on 0
    ink: Ink = "dark"  # of drawings that are inverted


CHARACTER_FORM = Form(CHARACTER_SIZE, 1, "pad", invert=True)  # drawn in dark ink on light paper


class Scaling(NamedTuple):
    """x is seen as (x - x_mean) / x_scale, and a target as (y - y_mean) / y_scale."""

    x_mean: Nested
    x_scale: Nested
    y_mean: float = 0.0
    y_scale: float = 1.0
    columns: tuple[str, ...] = ()  # the names of the numbers of an x, in their order, if they have names
    target: str = ""  # the name of y

    def inputs(self, x: Tensor) -> Tensor:
        """What the network sees of x [n, *inputs]."""
        return (x - x.new_tensor(self.x_mean)) / x.new_tensor(self.x_scale)

    def units(self, x: Tensor) -> Tensor:
        """The x [n, *inputs] of which the network sees this."""
        return x * x.new_tensor(self.x_scale) + x.new_tensor(self.x_mean)

    def support(self, batch: Batch) -> Batch:
        """What the network sees of a support set; class numbers stay as they are."""
        x, y = batch
        return Batch(self.inputs(x), (y - self.y_mean) / self.y_scale if y.is_floating_point() else y)

    def before(self, apply: Apply) -> Apply:
        """The function of what the network sees as one of x in the file's units."""
        return lambda params, x: apply(params, self.inputs(x))


def in_own_units(apply: Apply, scaling: Scaling | None) -> Apply:
    """The network with inputs and outputs in the units of its data; as it is where they were not scaled."""
    if scaling is None:
        return apply
    seen = scaling.before(apply)
    return lambda params, x: seen(params, x) * scaling.y_scale + scaling.y_mean


def read_scaling(found: dict[str, Any] | None, inputs: tuple[int, ...]) -> Scaling | None:
    """The scaling in a model's metadata; ValueError unless its numbers are finite and fit x of the shape ``inputs``."""
    if found is None:
        return None
    scaling = Scaling(**{**found, "columns": tuple(found["columns"])})
    mean, scale = (torch.tensor(part, dtype=torch.float64) for part in (scaling.x_mean, scaling.x_scale))
    fits = mean.shape == scale.shape == (inputs[0], *[1] * (len(inputs) - 1))
    positive = bool((scale > 0).all()) and scaling.y_scale > 0
    finite = bool(torch.cat([mean.flatten(), scale.flatten()]).isfinite().all())
    if not (fits and positive and finite and all(map(math.isfinite, (scaling.y_mean, scaling.y_scale)))):
        raise ValueError("scaling")
    return scaling
