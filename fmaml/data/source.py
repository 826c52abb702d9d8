"""The interface of a data source: how to draw tasks, measure results and draw pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import Error
from ..files.plain_text import with_interval
from ..losses import Apply, Criterion, accuracy, cross_entropy, inductive, transductive
from ..rng import fold, signed
from ..types import Batch, LossFn, MetricFn, Params, Task
from .preprocessing import Form, Scaling

SPLITS = {"train": 0, "val": 1, "test": 2}  # split -> its counter. Never renumber: it would change every task drawn


class Metric(NamedTuple):
    """The metric of reported results.

    >>> import fmaml
    >>> fmaml.data.Metric("squared error", fmaml.mse, ".3f", more_is_better=False).write(0.25, ci95=0.125)
    '0.250 ± 0.125'
    """

    name: str  # such as "accuracy"
    fn: Criterion
    style: str  # format specification of a value, such as ".2%"
    more_is_better: bool

    def write(self, value: float, ci95: float | None = None) -> str:
        """Format a value, such as ``98.70%``, or with the half-width of its confidence interval, ``98.70% ± 0.40%``."""
        return with_interval(value, ci95, self.style)


ACCURACY = Metric("accuracy", accuracy, ".2%", more_is_better=True)

QuerySetting = Callable[[Apply, Criterion], MetricFn]  # `transductive` or `inductive`
Show = Callable[[Path, list[Task], list[list[Params]], Apply], None]
Sample = Callable[[str, int, range], Task]
About = dict[str, Any]  # values must fit into JSON


def show_nothing(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """The ``show`` of a source without pictures."""


class Source(NamedTuple):
    """A source of tasks.

    ``sample(split, step, tasks)`` returns the stacked tasks of one meta-batch, for a range of task numbers. Task i
    depends only on (seed, split, step, i). So R processes that each sample a part of the range get the same tasks as
    one process that samples all of it. ``references`` and ``classes_of`` take the same arguments.

    >>> import torch, fmaml
    >>> def sample(split, step, tasks):  # lines y = a x through 0, a in [0, 1), seen at three points
    ...     keys = fmaml.data.task_keys(0, split, step, tasks, torch.device("cpu"))
    ...     x, a = torch.arange(3.0)[:, None].expand(len(tasks), 3, 1), fmaml.rng.uniform(keys).float()[:, None, None]
    ...     return fmaml.Task(fmaml.Batch(x, a * x), fmaml.Batch(x, a * x))
    >>> metric = fmaml.data.Metric("squared error", fmaml.mse, ".3f", more_is_better=False)
    >>> about = {"task": "3-shot lines", "protocol": "3-shot lines through 0"}
    >>> source = fmaml.data.Source(sample, (1,), 1, about, criterion=fmaml.mse, metric=metric)
    >>> source.sample("train", 1, range(16)).support.y.shape
    torch.Size([16, 3, 1])
    """

    sample: Sample  # split is "train", "val" or "test"
    inputs: tuple[int, ...]  # the shape of a network's input: of one x, such as (1, 28, 28), or of a state
    outputs: int  # the width of the model's output: for classification the number of ways
    about: About  # "task", such as "5-way 1-shot", "protocol", one line for reports, and more for results.json
    show: Show = show_nothing  # writes pictures of test tasks, with their parameters after 0, 1, .. inner steps
    criterion: Criterion = cross_entropy
    metric: Metric = ACCURACY
    settings: tuple[QuerySetting, ...] = (transductive, inductive)  # validations use the first
    chance: float | None = None  # the metric of random guessing, if known
    references: Callable[[str, int, range], dict[str, Tensor]] | None = (
        None  # other values of the metric: name -> [tasks]
    )
    data: Mapping[str, object] | None = None  # split -> tensors that tasks are drawn from; a resumed run needs the same
    form: Form | None = None  # how image files become x; trained models read images the same way
    scaling: Scaling | None = None  # how x and y were standardised; trained models take and give the original units
    of_features: "Callable[[Callable[[Tensor], Tensor]], Source] | None" = None
    """The source with x = fn(stored x), for a whole split at once. For networks with frozen first layers."""
    seen: Sample | None = None  # for sources of features: ``sample`` with the images as x, for pictures
    classes_of: Callable[[str, int, range], list[list[str]]] | None = None  # the names of each task's classes
    loss: Callable[[Apply], LossFn] | None = None  # instead of the ``criterion``; declared by ``own_loss``

    def tested(self, *, alone: bool) -> tuple[QuerySetting, ...]:
        """The ``settings`` of a test: all, or if not ``alone``, all but `inductive`. The first always stays."""
        first, *others = self.settings
        return (first, *(setting for setting in others if alone or setting is not inductive))


def task_keys(seed: int, split: str, step: int | Tensor, tasks: range, device: torch.device) -> Tensor:
    """One key per task, int64 [tasks], on ``device``. Each depends only on (seed, split, step, task number).

    ``split`` is "train", "val" or "test" (KeyError otherwise), ``tasks`` the range of task numbers.

    >>> import torch, fmaml
    >>> keys = fmaml.data.task_keys(0, "train", 1, range(16), torch.device("cpu"))
    >>> bool((keys[3:5] == fmaml.data.task_keys(0, "train", 1, range(3, 5), torch.device("cpu"))).all())
    True
    """
    counters = torch.arange(tasks.start, tasks.stop, tasks.step, device=device)
    return fold(fold(fold(signed(seed), SPLITS[split]), step), counters)


def check_tasks(split: str, tasks: Task, source: Source) -> None:
    """Raise Error if stacked tasks do not fit their source."""
    for name, batch in tasks._asdict().items():
        if problem := _problem(batch, source):
            raise Error(f"data: the {name} set of split {split} {problem}")


def _problem(batch: Batch, source: Source) -> str:
    x, y = batch
    if source.loss is None and tuple(x.shape[2:]) != source.inputs:
        return f"has examples of shape {list(x.shape[2:])}, but the source has inputs = {list(source.inputs)}"
    if y.shape[:2] != x.shape[:2]:
        return f"has {list(y.shape[:2])} targets for {list(x.shape[:2])} examples, each [tasks, n]; give one for each"
    if y.is_floating_point():
        return "" if y.isfinite().all() else "has targets that are not finite"
    if y.dtype != torch.int64:
        return f"has labels of type {str(y.dtype).removeprefix('torch.')}; they must be int64"
    if int(y.max()) >= source.outputs:
        return f"has label {int(y.max())}, and the network has {source.outputs} outputs; labels must be below that"
    return "" if (y >= 0).flatten(1).any(1).all() else "has a task with negative labels only; padding alone is negative"
