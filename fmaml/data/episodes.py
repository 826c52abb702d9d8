"""N-way K-shot tasks out of a tensor of images: a few gathers, on the device that holds the images."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..types import Batch, Task
from .bits import fold, task_keys
from .source import Source


class Split(NamedTuple):
    """The classes of one split, one after the other; they may differ in size."""

    images: Tensor  # uint8 [images, channels, height, width]
    start: Tensor  # int64 [classes]: where a class begins in `images`
    count: Tensor  # int64 [classes]: how many images it has
    most: int  # max(count), known without asking the device


def even(images: Tensor) -> Split:
    """A split of classes of one size from uint8 [classes, each, channels, height, width]."""
    classes, each = images.shape[:2]
    start = torch.arange(classes, device=images.device) * each
    return Split(images.flatten(0, 1), start, torch.full_like(start, each), each)


def rotated(split: Split) -> Split:
    """Four times the classes: every class turned by 0, 90, 180 and 270 degrees counts as one of its own."""
    turns = range(4)
    images = torch.cat([split.images.rot90(turn, (2, 3)) for turn in turns])
    start = torch.cat([split.start + turn * len(split.images) for turn in turns])
    return Split(images, start, split.count.repeat(4), split.most)


def cut(images: Tensor, classes: dict[str, int], rotate: tuple[str, ...]) -> dict[str, Split]:
    """Uint8 [classes, each, channels, height, width] cut into consecutive splits of so many classes, rotated where
    ``rotate`` names them."""
    parts = zip(classes, images.split(list(classes.values())), strict=True)
    return {name: rotated(even(part)) if name in rotate else even(part) for name, part in parts}


def sample_episodes(split: Split, keys: Tensor, *, ways: int, shots: int, queries: int) -> Task:
    """One task a key: support x [tasks, ways * shots, C, H, W] float32 in [0, 1], y int64 [tasks, ways * shots];
    query the same with ``queries``. Rows go class by class; label i is the i-th class drawn, so labels are shuffled.

    Every class of the split and every image of a chosen class gets a random score; the highest win. Scores that tie
    (chance 2^-64 a pair) are the one thing that devices may settle differently.
    """
    classes = len(split.start)
    slots = torch.arange(classes + ways * split.most, device=keys.device)
    scores = fold(keys[:, None], slots)  # [tasks, slots]: the classes' first, then the images' way by way
    chosen = scores[:, :classes].topk(ways).indices  # [tasks, ways]

    places = slots[: split.most]
    absent = places >= split.count[chosen][..., None]  # [tasks, ways, most]
    image_scores = scores[:, classes:].unflatten(1, (ways, split.most)).masked_fill(absent, -(2**63))
    drawn = image_scores.topk(shots + queries).indices  # [tasks, ways, shots + queries], all different
    rows = drawn + split.start[chosen][..., None]
    return Task(_batch(split, rows[..., :shots]), _batch(split, rows[..., shots:]))


def _batch(split: Split, rows: Tensor) -> Batch:
    """Row numbers [tasks, ways, each] to a batch of [tasks, ways * each] examples."""
    tasks, ways, each = rows.shape
    # A product, not a quotient: CUDA divides by a constant by way of its reciprocal and would differ in the last bit.
    x = split.images[rows.flatten(1)].float().mul_(1 / 255)
    y = torch.arange(ways, device=rows.device).repeat_interleave(each, output_size=ways * each)
    return Batch(x, y.repeat(tasks, 1))


def episodes(
    splits: dict[str, Split], *, seed: int, ways: int, shots: int, queries: int, about: dict[str, Any]
) -> Source:
    """A source of tasks over class splits. Refuses what a split cannot give, with the split and class named."""
    for name, split in splits.items():
        _check(name, split, ways, shots + queries)

    def sample(split: str, step: int, tasks: range) -> Task:
        images = splits[split]
        keys = task_keys(seed, split, step, tasks, images.start.device)
        return sample_episodes(images, keys, ways=ways, shots=shots, queries=queries)

    sizes = {name: len(split.start) for name, split in splits.items()}
    numbers = {"ways": ways, "shots": shots, "queries": queries, "classes": sizes}
    inputs = tuple(next(iter(splits.values())).images.shape[1:])
    return Source(sample, inputs, ways, {**about, **numbers})


def _check(name: str, split: Split, ways: int, each: int) -> None:
    """Raise UserError unless the split has ``ways`` classes of at least ``each`` images."""
    classes, least = len(split.count), int(split.count.min())
    if ways > classes:
        raise UserError(
            f"data.ways = {ways}: the {name} split has {classes} classes and a task takes that many different ones; "
            f"use data.ways <= {classes}"
        )
    if each > least:
        raise UserError(
            f"data.shots + data.queries = {each}: class {int(split.count.argmin())} of the {name} split has {least} "
            f"images and a task takes that many different ones; use data.shots + data.queries <= {least}"
        )
