"""Meta-testing: the metric on the tasks of a split, after every inner step, as means with intervals."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.settings import EvalSettings
from ..data.source import QuerySetting, Source
from ..outer import evaluate
from ..types import Task, Theta
from .build import Experiment
from .signals import poll


class Interval(NamedTuple):
    """A mean over tasks and half the width of its 95 % confidence interval."""

    mean: float
    ci95: float | None  # of one task there is none


def meta_test(experiment: Experiment, theta: Theta, settings: EvalSettings) -> dict[str, list[Interval]]:
    """For each evaluation protocol of the source, the metric on unseen tasks after 0, 1, .. inner steps."""
    return {
        protocol.__name__: intervals(scores(experiment, protocol, theta, "test", settings.tasks, settings.steps))
        for protocol in experiment.source.settings
    }


def references(source: Source, settings: EvalSettings, chunk: int = 16) -> dict[str, list[Interval]]:
    """What else the metric of the same tasks may be held against, which is the same after any number of steps."""
    if source.references is None:
        return {}
    chunks = [source.references("test", 0, part) for part in task_ranges(settings.tasks, chunk)]
    values = {label: torch.cat([part[label].cpu() for part in chunks]) for label in chunks[0]}
    return {label: [interval(column)] * (settings.steps + 1) for label, column in values.items()}


def scores(
    experiment: Experiment,
    protocol: QuerySetting,
    theta: Theta,
    split: str,
    tasks: int,
    steps: int,
    chunk: int | None = None,
) -> Tensor:
    """The metric for each task and inner step, [tasks, steps + 1], on the first tasks of a split; on the CPU."""
    chunk = chunk or tasks_at_once(experiment.source)
    metric_fn = protocol(experiment.model.apply, experiment.source.metric.fn)
    rows: list[Tensor] = [
        evaluate(experiment.algorithm, metric_fn, theta, batch, steps=steps).cpu()
        for batch in batches(experiment, split, tasks, chunk)
    ]
    return torch.cat(rows)


def tasks_at_once(source: Source) -> int:
    """How many tasks are tested in one call: 16 of the size of Omniglot's, fewer of large images."""
    return min(16, max(1, 16 * 28 * 28 // math.prod(source.inputs)))


def batches(experiment: Experiment, split: str, tasks: int, chunk: int) -> Iterator[Task]:
    """The tasks 0 .. of a split, ``chunk`` at a time."""
    for part in task_ranges(tasks, chunk):
        yield experiment.source.sample(split, 0, part)


def task_ranges(tasks: int, chunk: int) -> Iterator[range]:
    """0 .. tasks in ranges of ``chunk``; a signal is heard before each."""
    for first in range(0, tasks, chunk):
        poll()
        yield range(first, min(first + chunk, tasks))


def intervals(scores: Tensor) -> list[Interval]:
    """One for each inner step; ``scores`` [tasks, steps + 1]."""
    return [interval(column) for column in scores.T]


def interval(values: Tensor) -> Interval:
    """Mean and 1.96 standard errors of one number a task; ``values`` [tasks]."""
    mean, count = values.double().mean().item(), len(values)
    return Interval(mean, 1.96 * values.double().std().item() / math.sqrt(count) if count > 1 else None)
