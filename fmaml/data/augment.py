"""Photographs seen a little differently each time: mirrored and shifted at random, in training tasks alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ranges import Change
from ..rng import fold, uniform
from ..types import Batch, Task
from .rng import task_keys
from .source import Source

_SUPPORT, _QUERY = -2, -3  # counters of a task's key; `sample_episodes` uses those from 0, `randomize_sizes` -1
_MIRROR, _DOWN, _RIGHT = range(3)  # counters of an image's key
_FARTHEST = 8  # an image is shifted by an eighth of its size at most


def augmented(source: Source, changes: Sequence[Change], seed: int) -> Source:
    """The source of images with these changes to those of training tasks, a function of ``seed`` and the task alone."""
    if not changes:
        return source

    def sample(split: str, step: int, tasks: range) -> Task:
        plain = source.sample(split, step, tasks)
        if split != "train":
            return plain
        keys = task_keys(seed, split, step, tasks, plain.query.y.device)
        return Task(*(_changed(batch, fold(keys, part)) for batch, part in zip(plain, (_SUPPORT, _QUERY), strict=True)))

    def _changed(batch: Batch, keys: Tensor) -> Batch:
        images = torch.arange(batch.y.shape[1], device=keys.device)
        return Batch(changed(batch.x, fold(keys[:, None], images), changes), batch.y)

    return source._replace(sample=sample, about={**source.about, "augment": list(changes)}, of_features=None)


def changed(x: Tensor, keys: Tensor, changes: Sequence[Change]) -> Tensor:
    """Images x [tasks, n, channels, height, width] with random changes by the keys, int64 [tasks, n].

    "flip" mirrors every other image, left to right; "shift" moves each by up to an eighth of its height and width, and
    what comes in at the border is the image's own reflection.
    """
    rows, columns = (torch.arange(size, device=x.device).expand(*keys.shape, size) for size in x.shape[-2:])
    if "flip" in changes:
        mirrored = uniform(fold(keys, _MIRROR)) < 0.5
        columns = torch.where(mirrored[..., None], columns.flip(-1), columns)
    if "shift" in changes:
        rows, columns = _shifted(rows, fold(keys, _DOWN)), _shifted(columns, fold(keys, _RIGHT))
    x = x.gather(-2, rows[:, :, None, :, None].expand(x.shape))
    return x.gather(-1, columns[:, :, None, None, :].expand(x.shape))


def _shifted(places: Tensor, keys: Tensor) -> Tensor:
    """Places [tasks, n, size] from 0 to size - 1, each image's moved by a random number and reflected at the ends."""
    last = places.shape[-1] - 1
    farthest = (last + 1) // _FARTHEST
    by = (uniform(keys) * (2 * farthest + 1)).long() - farthest
    return last - (last - (places + by[..., None]).abs()).abs()
