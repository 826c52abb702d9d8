"""Tasks of different ways and shots in one tensor: padded to the largest, the padding labelled -1.

A padding row repeats a real example of the same task, and the losses pass over it (`fmaml.cross_entropy` and
`fmaml.accuracy` take no notice of label -1). Classes that a task does not have are closed to it by `among`. So a
padded task's loss and all its gradients are those of the task alone, for a network that treats each example by
itself: norm none, layer or group. Batch norm does not: its mean and variance are then of the padded batch, where some
examples count more often than others. The gradients are exact for that loss, but it is another loss.
"""

import torch
from torch import Tensor

from ..losses import IGNORED, Criterion
from ..types import Batch, Task
from .rng import fold, uniform

Size = int | tuple[int, int] | list[int]  # a number, or its least and greatest
SIZES = -1  # the slot of a task's key that its sizes are drawn from; those of `sample_episodes` count from 0


def bounds(size: Size) -> tuple[int, int]:
    """The least and the greatest."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def in_words(size: Size) -> str:
    """Such as 5, or 3 to 8."""
    least, most = bounds(size)
    return str(most) if least == most else f"{least} to {most}"


def thin(task: Task, keys: Tensor, *, ways: Size, shots: Size, queries: Size) -> Task:
    """Full stacked tasks, of the greatest ways, shots and queries, cut down to a random size each.

    The ways of a task, and the shots and queries of each of its classes, are uniform between their bounds: what a
    task has is a function of its key alone.
    """
    most = bounds(ways)[1]
    u = uniform(fold(fold(keys, SIZES)[:, None], torch.arange(1 + 2 * most, device=keys.device)))
    present = _between(ways, u[:, :1])  # [tasks, 1]
    support, query = _between(shots, u[:, 1 : most + 1]), _between(queries, u[:, most + 1 :])  # [tasks, ways]
    return Task(_thinned(task.support, present, support), _thinned(task.query, present, query))


def _between(size: Size, u: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) to whole numbers, each from least to greatest equally often."""
    least, most = bounds(size)
    return least + ((most - least + 1) * u).long()


def _thinned(batch: Batch, present: Tensor, count: Tensor) -> Batch:
    """Keep ``present`` [tasks, 1] ways and of each its first ``count`` [tasks, ways] rows; the others repeat those."""
    ways = count.shape[1]
    each = batch.y.shape[1] // ways
    way, slot = torch.arange(ways, device=count.device), torch.arange(each, device=count.device)
    real = (way < present)[..., None] & (slot < count[..., None])  # [tasks, ways, each]
    stand_in = way % present  # [tasks, ways]: itself if it is present
    rows = stand_in[..., None] * each + slot % count.gather(1, stand_in)[..., None]
    tasks = torch.arange(len(count), device=count.device)[:, None]
    return Batch(batch.x[tasks, rows.flatten(1)], torch.where(real.flatten(1), batch.y, IGNORED))


def real(batch: Batch) -> Batch:
    """One task's examples without the padding."""
    return Batch(batch.x[batch.y != IGNORED], batch.y[batch.y != IGNORED])


def among(criterion: Criterion) -> Criterion:
    """The criterion of logits [n, classes] among the classes 0 .. max(y) alone: those that the task has."""

    def masked(logits: Tensor, y: Tensor) -> Tensor:
        absent = torch.arange(logits.shape[-1], device=y.device) > y.max()
        return criterion(logits.masked_fill(absent, -torch.inf), y)

    return masked
