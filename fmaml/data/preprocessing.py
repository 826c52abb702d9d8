"""Convert images and numbers of files to inputs of a network, and its outputs back to their units."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..losses import Apply
from ..types import Batch
from .dataset_facts import CHARACTER_SIZE

Nested = list[float] | list[list[float]]  # broadcasts against one x


Ink: TypeAlias = Literal["auto", "dark", "light"]  # "auto" looks at the border of each drawing


class Form(NamedTuple):
    """The form that all images are converted to. Its repr is part of cache file names: renaming it empties caches.

    ``fit`` makes an image square: "crop" takes the central square, "squeeze" changes the aspect ratio, "pad" adds white
    borders.
    """

    size: int  # height and width in pixels
    channels: int  # 1: grey, 3: red, green, blue
    fit: Literal["crop", "squeeze", "pad"] = "crop"
    invert: bool = False  # for drawings: ink becomes 255 on 0
    ink: Ink = "dark"  # the ink in files, if ``invert``

    def of_model(self) -> dict[str, Any]:
        """The form in the metadata of a model, without the ink of a user's drawings."""
        return {name: value for name, value in self._asdict().items() if name != "ink"}


CHARACTER_FORM = Form(CHARACTER_SIZE, 1, "pad", invert=True)  # drawn in dark ink on light paper


class Scaling(NamedTuple):
    """Standardisation: the network sees (x - x_mean) / x_scale, and targets are (y - y_mean) / y_scale."""

    x_mean: Nested
    x_scale: Nested
    y_mean: float = 0.0
    y_scale: float = 1.0
    columns: tuple[str, ...] = ()  # the names of the numbers of an x, in order, if any
    target: str = ""  # the name of y

    def inputs(self, x: Tensor) -> Tensor:
        """Standardise x [n, *inputs] for the network."""
        return (x - x.new_tensor(self.x_mean)) / x.new_tensor(self.x_scale)

    def units(self, x: Tensor) -> Tensor:
        """Convert network inputs back to x [n, *inputs]: the inverse of `inputs`."""
        return x * x.new_tensor(self.x_scale) + x.new_tensor(self.x_mean)

    def support(self, batch: Batch) -> Batch:
        """Standardise a support set for the network. Class numbers stay."""
        x, y = batch
        return Batch(self.inputs(x), (y - self.y_mean) / self.y_scale if y.is_floating_point() else y)

    def before(self, apply: Apply) -> Apply:
        """Wrap a network so that it takes x in the file's units."""
        return lambda params, x: apply(params, self.inputs(x))


def in_own_units(apply: Apply, scaling: Scaling | None) -> Apply:
    """Wrap a network to take and give the units of its data. Returns it unchanged if ``scaling`` is None."""
    if scaling is None:
        return apply
    seen = scaling.before(apply)
    return lambda params, x: seen(params, x) * scaling.y_scale + scaling.y_mean


def read_scaling(found: dict[str, Any] | None, inputs: tuple[int, ...]) -> Scaling | None:
    """Read the scaling in a model's metadata. Raises ValueError unless it is finite and fits x of shape ``inputs``."""
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
