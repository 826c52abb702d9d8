"""What the rest of the library knows of a data source: how to get tasks, and how to judge and show what was learnt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..losses import Apply, Criterion, accuracy, cross_entropy, inductive, transductive
from ..types import MetricFn, Params, Task


class Metric(NamedTuple):
    """What reports are in."""

    name: str  # such as "accuracy"
    fn: Criterion
    style: str  # how a value is written: a format specification
    more_is_better: bool

    def write(self, value: float, ci95: float | None = None) -> str:
        interval = "" if ci95 is None else f" ± {ci95:{self.style}}"
        return f"{value:{self.style}}{interval}"


ACCURACY = Metric("accuracy", accuracy, ".2%", more_is_better=True)

Setting = Callable[[Apply, Criterion], MetricFn]  # `transductive` or `inductive`
Show = Callable[[Path, list[Task], list[list[Params]], Apply], None]


class Source(NamedTuple):
    """A source of tasks.

    ``sample(split, step, tasks)`` returns the stacked tasks of one meta-batch. ``tasks`` is a range of task numbers:
    process r of R samples its own slice and together they see what one process would have seen, since task i of
    (split, step) is a function of (seed, split, step, i) alone.

    ``about`` holds "task", in a few words such as "5-way 1-shot", and "protocol", one line with all that the numbers
    depend on; what else it holds goes into results.json. ``show`` writes pictures of a few test tasks into a folder,
    given for each the parameters after 0, 1, .. inner steps. ``references``, with the arguments of ``sample``, gives
    by name what else the metric of those tasks may be held against, such as the best that is possible: each [tasks].
    ``data`` is what tasks are drawn from, if not from random numbers alone: a resumed run must have the same.
    """

    sample: Callable[[str, int, range], Task]  # split is "train", "val" or "test"
    inputs: tuple[int, ...]  # the shape of one x, such as (1, 28, 28)
    outputs: int  # the width of the model's output: ways for classification
    about: dict[str, Any]
    show: Show
    criterion: Criterion = cross_entropy
    metric: Metric = ACCURACY
    settings: tuple[Setting, ...] = (transductive, inductive)
    chance: float | None = None  # the metric of a guess, if it is known
    references: Callable[[str, int, range], dict[str, Tensor]] | None = None
    data: dict[str, Any] | None = None  # split -> a tree of tensors and numbers
