"""The interface of a data source: how to draw tasks, and how to measure and show what was learnt."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..losses import Apply, Criterion, accuracy, cross_entropy, inductive, transductive
from ..types import LossFn, MetricFn, Params, Task
from .images.decode import Form
from .scaling import Scaling


class Metric(NamedTuple):
    """What results are reported in.

    >>> import fmaml
    >>> fmaml.data.Metric("squared error", fmaml.mse, ".3f", more_is_better=False).write(0.25, ci95=0.125)
    '0.250 ± 0.125'
    """

    name: str  # such as "accuracy"
    fn: Criterion
    style: str  # format specification of a value, such as ".2%"
    more_is_better: bool

    def write(self, value: float, ci95: float | None = None) -> str:
        """The value as text, such as ``98.70%``; with the half-width of its confidence interval ``98.70% ± 0.40%``."""
        if math.isnan(value):
            return "not finite"
        interval = "" if ci95 is None else f" ± {ci95:{self.style}}"
        return f"{value:{self.style}}{interval}"


ACCURACY = Metric("accuracy", accuracy, ".2%", more_is_better=True)

QuerySetting = Callable[[Apply, Criterion], MetricFn]  # `transductive` or `inductive`
Show = Callable[[Path, list[Task], list[list[Params]], Apply], None]
Sample = Callable[[str, int, range], Task]
About = dict[str, Any]  # values are whatever JSON can hold


def show_nothing(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """The ``show`` of a source without pictures."""


class Source(NamedTuple):
    """A source of tasks.

    ``sample(split, step, tasks)`` returns the stacked tasks of one meta-batch. ``tasks`` is a range of task numbers.
    Task i of (split, step) is a function of (seed, split, step, i) alone, so R processes that each sample their own
    part of the range together get the same tasks as one process that samples all of it.

    ``about`` holds "task", a short name such as "5-way 1-shot", and "protocol", one line with everything that the
    results depend on; all of it is written to results.json. ``show(folder, tasks, phis, apply)`` writes pictures of a
    few test tasks into a folder, given for each task its parameters after 0, 1, .. inner steps. ``references``, with
    the arguments of ``sample``, gives values to compare the metric with, such as the best possible one: name ->
    [tasks]. ``data`` is what tasks are drawn from, if not from random numbers alone; a resumed run must have the same.
    ``form`` says how an image file becomes an x, where x are images: a trained model reads others' images like that.
    ``scaling`` says how x and y were standardised: a trained model takes and gives the units that they had before.
    ``of_features(fn)`` is the source whose x are those of ``fn``, which is called once with all x of each split as they
    are stored; ``seen`` is then the ``sample`` of this source, whose x people can look at. ``classes_of``, with the
    arguments of ``sample``, gives the names of each task's classes, where they have any. ``loss(apply)`` is the loss of
    a network where that is not the ``criterion`` of its outputs, as for a policy, whose data come from what it does
    and whose x are the noise in that.
    The first of the ``settings`` is that of validations.

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
    inputs: tuple[int, ...]  # the shape of what a network takes: of one x, such as (1, 28, 28), or of a state
    outputs: int  # the width of the model's output: for classification the number of ways
    about: About
    show: Show = show_nothing
    criterion: Criterion = cross_entropy
    metric: Metric = ACCURACY
    settings: tuple[QuerySetting, ...] = (transductive, inductive)
    chance: float | None = None  # the metric of random guessing, if known
    references: Callable[[str, int, range], dict[str, Tensor]] | None = None
    data: Mapping[str, object] | None = None  # split -> a tree of tensors and numbers
    form: Form | None = None
    scaling: Scaling | None = None
    of_features: "Callable[[Callable[[Tensor], Tensor]], Source] | None" = None
    seen: Sample | None = None
    classes_of: Callable[[str, int, range], list[list[str]]] | None = None
    loss: Callable[[Apply], LossFn] | None = None

    def tested(self, *, alone: bool) -> tuple[QuerySetting, ...]:
        """The ``settings`` that a test takes: all, or without ``alone`` the first and those but `inductive`."""
        first, *others = self.settings
        return (first, *(setting for setting in others if alone or setting is not inductive))
