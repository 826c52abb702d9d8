"""Predictions for the queries of test tasks: probabilities, confused classes, change of each parameter."""

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from ..config.build import Experiment
from ..data.source import Source
from ..evaluation import evaluate
from ..intervals import wilson_interval
from ..losses import IGNORED
from ..tree import take
from ..types import Task, Theta
from .scores import task_ranges, tasks_at_once

TASKS_OF_CONFUSIONS = 100


class NamedTask(NamedTuple):
    """A task with the names of its classes, and for each query the probability of each class."""

    task: Task  # with images or signals in their original form, for display
    names: list[str]
    probabilities: Tensor  # [queries, ways] on the CPU


class Confusion(NamedTuple):
    """Two classes that were in the same task."""

    names: tuple[str, str]
    mistakes: int  # queries of one class that were taken for the other
    queries: int  # queries of both classes in tasks with both
    tasks: int
    pictures: tuple[Tensor, Tensor]  # a support example of each


def named_tasks(experiment: Experiment, theta: Theta, steps: int, tasks: range) -> list[NamedTask]:
    """The test tasks with these numbers, with predictions after the last inner step, all queries together."""
    source, apply = experiment.source, experiment.model.apply
    found: list[NamedTask] = []
    for part in task_ranges(len(tasks), tasks_at_once(source)):
        numbers = range(tasks.start + part.start, tasks.start + part.stop)
        stacked = source.sample("test", 0, numbers)
        batching = "loop" if experiment.looped else "vmap"
        logits = evaluate(
            experiment.algorithm,
            lambda phi, task: apply(phi, task.query.x),
            theta,
            stacked,
            steps=steps,
            batching=batching,
        )
        shown = (source.seen or source.sample)("test", 0, numbers)
        names = class_names_of(source, numbers)
        for i in range(len(part)):
            task = take(shown, i)
            ways = int(task.support.y.max()) + 1
            found.append(NamedTask(task, names[i][:ways], logits[i, -1, :, :ways].float().softmax(-1).cpu()))
    return found


def class_names_of(source: Source, tasks: range) -> list[list[str]]:
    """The names of each task's classes; without names, their labels."""
    if source.classes_of is None:
        return [[f"class {label}" for label in range(source.outputs)] for _ in tasks]
    return source.classes_of("test", 0, tasks)


def most_confused(tasks: list[NamedTask], most: int) -> list[Confusion]:
    """The most confused pairs of classes, the worst first.

    They are sorted by the lower end of the rate's 95 % interval, so that a pair with few queries does not come first by
    chance.
    """
    mistakes: Counter[tuple[str, str]] = Counter()
    queries: Counter[tuple[str, str]] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    pictures: dict[str, Tensor] = {}
    for task, names, probabilities in tasks:
        truth, predicted = task.query.y.tolist(), probabilities.argmax(-1).tolist()
        counts = Counter(truth)
        for i, name in enumerate(names):
            pictures.setdefault(name, task.support.x[(task.support.y == i).nonzero()[0, 0]])
            for j in range(i):
                pair = _pair(names[j], name)
                queries[pair] += counts[i] + counts[j]
                together[pair] += 1
        answers = zip(truth, predicted, strict=True)
        mistakes.update(_pair(names[i], names[j]) for i, j in answers if i not in (j, IGNORED))
    order = sorted(mistakes, key=lambda pair: (-wilson_interval(mistakes[pair], queries[pair])[0], pair))
    return [
        Confusion(pair, mistakes[pair], queries[pair], together[pair], (pictures[pair[0]], pictures[pair[1]]))
        for pair in order[:most]
    ]


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a <= b else (b, a)


@torch.no_grad()
def change_by_parameter(experiment: Experiment, theta: Theta, steps: int, tasks: int) -> dict[str, tuple[float, float]]:
    """Parameter -> the squared norms of phi - theta and of theta, each a mean over the first test tasks.

    Returns {} for an algorithm without inner steps.
    """
    trajectory = experiment.algorithm.trajectory
    if trajectory is None or steps == 0:
        return {}
    stacked = experiment.source.sample("test", 0, range(tasks))
    sums: dict[str, tuple[float, float]] = {}
    for i in range(tasks):
        first, *_, last = trajectory(theta, take(stacked, i).support, steps)
        for name, value in last.items():
            if value.is_floating_point() and name in first and first[name].shape == value.shape:
                before = first[name].double()
                change, size = (value.double() - before).square().sum().item(), before.square().sum().item()
                old = sums.get(name, (0.0, 0.0))
                sums[name] = (old[0] + change / tasks, old[1] + size / tasks)
    return sums
