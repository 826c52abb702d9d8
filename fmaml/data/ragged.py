"""Stack tasks of different ways and shots in one tensor: pad to the largest size, with label -1 for padding.

A padding row repeats a real example of the same task. Losses ignore it: `fmaml.cross_entropy` and `fmaml.accuracy` skip
label -1. `mask_absent_classes` removes the classes that a task lacks from the softmax and the argmax.

If a network treats each example independently (norm none, layer or group), padding changes neither loss nor gradients.
Batch norm takes mean and variance of the padded batch, where some examples count more often. So the loss differs from
that of the unpadded task; the gradients are exact for this other loss.
"""

from functools import partial

import torch
from torch import Tensor

from ..losses import IGNORED, Criterion
from ..rng import fold, uniform
from ..types import Batch, Task

SizeRange = int | tuple[int, int] | list[int]  # a fixed number, or the bounds of a random one, both inclusive
_SIZES_COUNTER = -1  # of the key for a task's sizes; `sample_episodes` uses counters from 0


def bounds(size: SizeRange) -> tuple[int, int]:
    """The smallest and the largest value of a size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def describe_size(size: SizeRange) -> str:
    """A size for messages, such as "5" or "3 to 8"."""
    least, most = bounds(size)
    return str(most) if least == most else f"{least} to {most}"


def queries_a_class(size: SizeRange) -> str:
    """The number of queries for messages, such as "1 query a class"."""
    return f"{describe_size(size)} {'query' if bounds(size)[1] == 1 else 'queries'} a class"


def randomize_sizes(task: Task, keys: Tensor, *, ways: SizeRange, shots: SizeRange, queries: SizeRange) -> Task:
    """Reduce stacked tasks to random sizes: removed rows become padding with label -1, and the shapes stay.

    ``task`` has the largest ways, shots and queries, its rows sorted by class; ``keys`` is int64 [tasks]. The ways of
    each task, and the shots and queries of each class, are uniform between their bounds. They depend only on the task's
    key.
    """
    most = bounds(ways)[1]
    u = uniform(fold(fold(keys, _SIZES_COUNTER)[:, None], torch.arange(1 + 2 * most, device=keys.device)))
    present = _uniform_integers(ways, u[:, :1])  # [tasks, 1]
    support_counts = _uniform_integers(shots, u[:, 1 : most + 1])  # [tasks, ways]
    query_counts = _uniform_integers(queries, u[:, most + 1 :])  # [tasks, ways]
    return Task(_pad(task.support, present, support_counts), _pad(task.query, present, query_counts))


def _uniform_integers(size: SizeRange, u: Tensor) -> Tensor:
    """Convert uniform numbers in [0, 1) to uniform integers within the bounds of ``size``."""
    least, most = bounds(size)
    return least + ((most - least + 1) * u).long()


def _pad(batch: Batch, present: Tensor, counts: Tensor) -> Batch:
    """Replace rows of a batch by padding.

    The first ``present`` [tasks, 1] classes stay, with the first ``counts`` [tasks, ways] rows of each. Padding rows
    are copies of those with label -1.
    """
    ways = counts.shape[1]
    each = batch.y.shape[1] // ways
    way, slot = torch.arange(ways, device=counts.device), torch.arange(each, device=counts.device)
    is_real = (way < present)[..., None] & (slot < counts[..., None])  # [tasks, ways, each]
    source_way = way % present  # [tasks, ways]: the class itself if it is present
    rows = source_way[..., None] * each + slot % counts.gather(1, source_way)[..., None]
    tasks = torch.arange(len(counts), device=counts.device)[:, None]
    return Batch(batch.x[tasks, rows.flatten(1)], torch.where(is_real.flatten(1), batch.y, IGNORED))


def without_padding(batch: Batch) -> Batch:
    """Remove the padding from the batch of one task."""
    return Batch(batch.x[batch.y != IGNORED], batch.y[batch.y != IGNORED])


def mask_absent_classes(criterion: Criterion) -> Criterion:
    """Wrap a criterion: logits [n, classes] of classes above max(y), which the task lacks, become -inf."""
    return partial(_masked, criterion)


def _masked(criterion: Criterion, logits: Tensor, y: Tensor) -> Tensor:
    absent = torch.arange(logits.shape[-1], device=y.device) > y.max()
    return criterion(logits.masked_fill(absent, -torch.inf), y)
