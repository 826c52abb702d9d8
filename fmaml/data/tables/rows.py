"""Draw tasks from the rows of a table with a few gathers. A task is some rows of one group."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...rng import fold, uniform
from ...types import Batch, Task
from ..source import task_keys


class Rows(NamedTuple):
    """The rows of one split, group after group; groups may differ in size."""

    x: Tensor  # float32 [rows, features]
    y: Tensor  # float32 [rows, 1]
    starts: Tensor  # int64 [groups]: index in `x` of each group's first row
    counts: Tensor  # int64 [groups]: number of rows of each group
    max_count: int  # max(counts), stored because reading it from a GPU would wait for the GPU


def pack_rows(groups: list[Batch], device: torch.device) -> Rows:
    """Pack the rows of each group in tensors on ``device``."""
    counts = torch.tensor([len(group.x) for group in groups])
    x, y = (torch.cat([group[i] for group in groups]).float() for i in range(2))
    most = int(counts.max())
    x, y, starts, counts = (part.to(device) for part in (x, y, counts.cumsum(0) - counts, counts))
    return Rows(x, y, starts, counts, most)


def sample_rows(
    splits: dict[str, Rows], seed: int, split: str, step: int, tasks: range, *, shots: int, queries: int
) -> Task:
    """Draw stacked tasks of a split. ``tasks`` is a range of task numbers, as in `fmaml.data.source.Source`.

    Returns support x float32 [tasks, shots, features] and y [tasks, shots, 1]. The query set has the same shapes with
    ``queries`` instead of ``shots``. A task draws a group, then different rows of it. Every group must have ``shots +
    queries`` rows.
    """
    rows = splits[split]
    keys = task_keys(seed, split, step, tasks, rows.x.device)
    group = (uniform(fold(keys, 0)) * len(rows.counts)).long()  # [tasks]
    slots = torch.arange(rows.max_count, device=keys.device)
    absent = slots >= rows.counts[group][:, None]  # [tasks, max_count]
    scores = fold(fold(keys, 1)[:, None], slots).masked_fill(absent, -(2**63))
    drawn = rows.starts[group][:, None] + scores.topk(shots + queries).indices  # [tasks, shots + queries]
    x, y = rows.x[drawn], rows.y[drawn]
    return Task(Batch(x[:, :shots], y[:, :shots]), Batch(x[:, shots:], y[:, shots:]))
