"""The examples of a split in one tensor, class after class; tasks are drawn with a few gathers."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..rng import fold, uniform
from ..types import Batch, Task


class Split(NamedTuple):
    """The examples of one split, images or signals, class after class; classes may differ in size."""

    images: Tensor  # uint8 [images, channels, height, width], or float32 [signals, channels, length]
    starts: Tensor  # int64 [classes]: index in `images` of each class's first image
    counts: Tensor  # int64 [classes]: number of images of each class
    max_count: int  # max(counts), stored because reading it from a GPU would wait for the GPU

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the images as an array: pickling a view of a tensor would pickle the whole tensor."""
        return _split_of, (self.images.cpu().numpy(), *self[1:])


def _split_of(images: np.ndarray, starts: Tensor, counts: Tensor, max_count: int) -> Split:
    """Rebuild a split, with the images on the device of the other tensors."""
    return Split(torch.from_numpy(images).to(starts.device), starts, counts, max_count)


def equal_classes(images: Tensor) -> Split:
    """Make a split of classes of equal size from uint8 [classes, each, channels, height, width]."""
    classes, each = images.shape[:2]
    starts = torch.arange(classes, device=images.device) * each
    return Split(images.flatten(0, 1), starts, torch.full_like(starts, each), each)


def with_rotations(split: Split) -> Split:
    """Add each class rotated by 90, 180 and 270 degrees, as three more classes. Images must be square."""
    turns = range(4)
    images = torch.cat([split.images.rot90(turn, (2, 3)) for turn in turns])
    starts = torch.cat([split.starts + turn * len(split.images) for turn in turns])
    return Split(images, starts, split.counts.repeat(4), split.max_count)


def consecutive_splits(images: Tensor, classes: dict[str, int], rotate: tuple[str, ...]) -> dict[str, Split]:
    """Split uint8 [classes, each, C, H, W] into consecutive classes, as many as ``classes`` says, split -> number.

    Splits in ``rotate`` also get rotated classes, see `with_rotations`.
    """
    parts = {name: equal_classes(part) for name, part in zip(classes, images.split([*classes.values()]), strict=True)}
    return {name: with_rotations(part) if name in rotate else part for name, part in parts.items()}


def sample_episodes(split: Split, keys: Tensor, *, ways: int, shots: int, queries: int) -> Task:
    """Draw stacked N-way K-shot tasks, one per key of ``keys``, int64 [tasks].

    Returns support x float32 [tasks, ways * shots, C, H, W] in [0, 1] and y int64 [tasks, ways * shots]. The query set
    has the same shapes with ``queries`` instead of ``shots``. Rows are sorted by class, and label i is the i-th class
    drawn. The split must have ``ways`` classes and each class ``shots + queries`` images; `episodes` checks that.

    Every class of the split, and every image of a chosen class, gets a random 64-bit score; the highest are drawn.
    Devices may only differ in ties, which have probability 2^-64 for each pair.
    """
    classes = len(split.starts)
    slots = torch.arange(classes + ways * split.max_count, device=keys.device)
    scores = fold(keys[:, None], slots)  # [tasks, slots]: for the classes, then for the images of each way
    chosen = scores[:, :classes].topk(ways).indices

    absent = slots[: split.max_count] >= split.counts[chosen][..., None]  # [tasks, ways, max_count]
    image_scores = scores[:, classes:].unflatten(1, (ways, split.max_count)).masked_fill(absent, -(2**63))
    drawn = image_scores.topk(shots + queries).indices  # [tasks, ways, shots + queries], all different
    rows = drawn + split.starts[chosen][..., None]
    return Task(_gather(split, rows[..., :shots]), _gather(split, rows[..., shots:]))


def sample_batches(split: Split, keys: Tensor, size: int) -> Task:
    """Draw stacked batches of ``size`` examples of all classes, one per key of ``keys``, int64 [tasks].

    Label i is class i of the split. Each example is as likely as any other. The first half is the support set, the
    rest the query set.
    """
    u = uniform(fold(keys[:, None], torch.arange(size, device=keys.device)))  # float64 [tasks, size]
    rows = (u * len(split.images)).long()
    batch = Batch(as_floats(split.images[rows]), torch.searchsorted(split.starts, rows, right=True) - 1)
    half = size // 2
    return Task(Batch(*(part[:, :half] for part in batch)), Batch(*(part[:, half:] for part in batch)))


def draw_classes(split: Split, keys: Tensor, ways: int) -> Tensor:
    """The class numbers that `sample_episodes` draws, in the order of the labels: int64 [tasks, ways]."""
    return fold(keys[:, None], torch.arange(len(split.starts), device=keys.device)).topk(ways).indices


def _gather(split: Split, rows: Tensor) -> Batch:
    """The examples [tasks, ways * each] at row numbers [tasks, ways, each]."""
    tasks, ways, each = rows.shape
    x = as_floats(split.images[rows.flatten(1)])
    y = torch.arange(ways, device=rows.device).repeat_interleave(each, output_size=ways * each)
    return Batch(x, y.repeat(tasks, 1))


def as_floats(stored: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [0, 1]; float32 stays.

    Multiply, do not divide: CUDA divides by a constant through its reciprocal, so its last bit differs from the CPU's.
    """
    return stored if stored.is_floating_point() else stored.float().mul_(1 / 255)


def class_name(names: list[str], number: int) -> str:
    """The name of a class. Numbers beyond the names are rotated classes, see `with_rotations`."""
    turns, index = divmod(number, len(names))
    return f"{names[index]}, turned by {90 * turns} degrees" if turns else names[index]
