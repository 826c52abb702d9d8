"""Data augmentation: images mirrored, shifted and recoloured at random."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..rng import fold, uniform
from ..setting_types import Change
from ..types import Batch, Task

_SUPPORT, _QUERY = -2, -3  # counters of a task's key; `sample_episodes` uses 0 and up, `randomize_sizes` uses -1
_MIRROR, _DOWN, _RIGHT, _BRIGHTNESS, _CONTRAST, _SATURATION = range(6)  # counters of an image's key
_FARTHEST = 8  # an image is shifted by at most an eighth of its size
_STRONGEST = 0.4  # brightness, contrast and saturation change by at most this factor


def augmented(task: Task, keys: Tensor, changes: Sequence[Change]) -> Task:
    """Change each image of stacked tasks at random. ``keys`` are those of the tasks, int64 [tasks]."""

    def batch(plain: Batch, part: int) -> Batch:
        images = torch.arange(plain.y.shape[1], device=keys.device)
        return Batch(changed(plain.x, fold(fold(keys, part)[:, None], images), changes), plain.y)

    return Task(batch(task.support, _SUPPORT), batch(task.query, _QUERY))


def changed(x: Tensor, keys: Tensor, changes: Sequence[Change]) -> Tensor:
    """Change images x [tasks, n, channels, height, width] at random by their keys, int64 [tasks, n].

    "flip" mirrors an image left to right with probability 1/2. "shift" moves it by up to an eighth of its height and
    width; the border is filled with the image's reflection. "colour" multiplies saturation, contrast and brightness
    by 0.6 to 1.4 each.
    """
    rows, columns = (torch.arange(size, device=x.device).expand(*keys.shape, size) for size in x.shape[-2:])
    if "flip" in changes:
        mirrored = uniform(fold(keys, _MIRROR)) < 0.5
        columns = torch.where(mirrored[..., None], columns.flip(-1), columns)
    if "shift" in changes:
        rows, columns = _shifted(rows, fold(keys, _DOWN)), _shifted(columns, fold(keys, _RIGHT))
    x = x.gather(-2, rows[:, :, None, :, None].expand(x.shape))
    x = x.gather(-1, columns[:, :, None, None, :].expand(x.shape))
    return _recoloured(x, keys) if "colour" in changes else x


def _recoloured(x: Tensor, keys: Tensor) -> Tensor:
    """Change saturation, contrast and brightness of images in [0, 1] at random."""

    def factor(counter: int) -> Tensor:
        return (1 + _STRONGEST * (2 * uniform(fold(keys, counter)) - 1)).to(x.dtype)[..., None, None, None]

    grey = x.mean(-3, keepdim=True)
    x = grey + factor(_SATURATION) * (x - grey)
    mean = grey.mean((-2, -1), keepdim=True)
    return (factor(_BRIGHTNESS) * (mean + factor(_CONTRAST) * (x - mean))).clamp(0, 1)


def _shifted(places: Tensor, keys: Tensor) -> Tensor:
    """Shift the places [tasks, n, size], 0 to size - 1, of each image by a random number; reflect at the ends."""
    last = places.shape[-1] - 1
    farthest = (last + 1) // _FARTHEST
    by = (uniform(keys) * (2 * farthest + 1)).long() - farthest
    return last - (last - (places + by[..., None]).abs()).abs()
