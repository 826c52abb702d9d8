"""Meta-testing: the metric on a split's tasks after each inner step, as means with intervals."""

import math
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .. import distributed
from ..config.build import Experiment
from ..config.settings import EvalSettings
from ..data.source import QuerySetting, Source
from ..evaluation import evaluate
from ..intervals import t95, wilson_interval
from ..losses import accuracy, inductive
from ..processes.join import map_over_ranks
from ..setting_types import Batching
from ..tree import leading, leaves, take
from ..types import Task, Theta
from .saved_scores import SavedScores

LARGE_TEST_TASK = 100_000  # input numbers of a task; if each query is alone, vmapping larger ones can be slower
COST_ALONE = 1.5  # the relative cost of an example if each query is alone: 0.7 to 3.0 for conv4 on a CPU


class Interval(NamedTuple):
    """A mean over tasks and half the width of its 95 % confidence interval."""

    mean: float
    ci95: float | None  # None if there is only one task


class TaskCounter(Protocol):
    """Counts finished tasks and their forward passes, see `forward_passes`."""

    def skip(self, tasks: int, passes: float) -> None:
        """Count tasks that were scored before."""
        ...

    def advance(self, tasks: int, passes: float) -> None:
        """Count tasks that were just scored."""
        ...


def meta_test(
    experiment: Experiment,
    theta: Theta,
    settings: EvalSettings,
    *,
    saved: SavedScores | None,
    progress: TaskCounter,
    name: str = "",
) -> dict[str, list[Interval]]:
    """Protocol -> the metric on unseen tasks after 0, 1, .. inner steps, for each protocol of the source.

    Scores ``saved`` under the experiment's ``name`` are not computed again. Only the first of several processes has
    ``saved`` scores. ``progress`` counts the tasks.
    """
    results: dict[str, list[Interval]] = {}
    for protocol in experiment.source.tested(alone=settings.inductive):
        column = f"{name} {protocol.__name__}"
        parts = task_ranges(settings.tasks, tasks_at_once(experiment.source))
        a_task = forward_passes(experiment.source, protocol, settings.steps)
        scores = distributed.broadcast({part: saved.find(column, part) if saved else None for part in parts})
        to_test = [part for part in parts if scores[part] is None]
        known = settings.tasks - sum(map(len, to_test))
        progress.skip(known, known * a_task)
        compute = partial(scores_of, experiment, protocol, theta, "test", steps=settings.steps)
        for part, found in map_over_ranks(to_test, compute):
            if saved:
                saved.add(column, part, found)
            scores[part] = found
            progress.advance(len(part), len(part) * a_task)
        every = torch.cat([scores[part] for part in parts])  # [tasks, steps + 1]
        queries = judged_queries(experiment.source, "test")
        results[protocol.__name__] = [interval(after_a_step, queries) for after_a_step in every.T]
    return results


def references(source: Source, settings: EvalSettings, chunk: int = 16) -> dict[str, list[Interval]]:
    """The source's reference values on the same test tasks, repeated for each inner step because they do not change."""
    if source.references is None:
        return {}
    chunks = [source.references("test", 0, part) for part in task_ranges(settings.tasks, chunk)]
    values = {label: torch.cat([part[label].cpu() for part in chunks]) for label in chunks[0]}
    return {label: [interval(column)] * (settings.steps + 1) for label, column in values.items()}


def task_scores(
    experiment: Experiment,
    protocol: QuerySetting,
    theta: Theta,
    split: str,
    tasks: int,
    steps: int,
    chunk: int | None = None,
) -> Tensor:
    """The metric on the first ``tasks`` of a split after each inner step: [tasks, steps + 1], on the CPU."""
    chunk = chunk or tasks_at_once(experiment.source)
    compute = partial(scores_of, experiment, protocol, theta, split, steps=steps)
    return torch.cat([scores for _, scores in map_over_ranks(task_ranges(tasks, chunk), compute)])


def scores_of(
    experiment: Experiment, protocol: QuerySetting, theta: Theta, split: str, part: range, steps: int
) -> Tensor:
    """The result of `task_scores` for one range of tasks, computed in one call."""
    queries = partial(inductive, looped=experiment.looped) if protocol is inductive else protocol
    metric_fn = queries(experiment.model.apply, experiment.source.metric.fn)
    tasks = experiment.source.sample(split, 0, part)
    batching = "loop" if experiment.looped else batching_of_test(protocol, tasks)
    return evaluate(experiment.algorithm, metric_fn, theta, tasks, steps=steps, batching=batching).cpu()


def batching_of_test(protocol: QuerySetting, tasks: Task) -> Batching:
    """Loop over the tasks if each query is alone with the support set, and one task keeps a CPU busy; else "auto".

    Within a task the queries are vmapped in either case. Measurements: see docs/decisions.md.
    """
    if protocol is not inductive or tasks.query.y.device.type != "cpu":
        return "auto"
    support, query = (sum(x.numel() // leading(tasks) for x in leaves(batch.x)) for batch in tasks)
    return "loop" if query + tasks.query.y.shape[1] * support >= LARGE_TEST_TASK else "auto"


def tasks_at_once(source: Source) -> int:
    """The number of tasks in one call: 16 for inputs of Omniglot's size, fewer for larger ones."""
    return min(16, max(1, 16 * 28 * 28 // math.prod(source.inputs)))


def task_ranges(tasks: int, chunk: int) -> list[range]:
    """The numbers 0 .. tasks - 1 in ranges of ``chunk``."""
    return [range(first, min(first + chunk, tasks)) for first in range(0, tasks, chunk)]


def interval(values: Tensor, queries: int | None = None) -> Interval:
    """The mean of ``values`` [tasks], and half the width of its 95 % interval.

    It is a t-interval over tasks. Tasks without a mistake have no spread. So a rate of right answers to ``queries`` a
    task has at least the reach of Wilson's interval of all answers together.
    """
    values, tasks = values.double(), len(values)
    mean = values.mean().item()
    if tasks == 1:
        return Interval(mean, None)
    half = t95(tasks - 1) * values.std().item() / math.sqrt(tasks)
    if queries and 0 <= mean <= 1:
        low, high = wilson_interval(mean * tasks * queries, tasks * queries)
        half = max(half, mean - low, high - mean)
    return Interval(mean, half)


def judged_queries(source: Source, split: str) -> int | None:
    """The number of queries of a task of the split, if the metric is the rate of right answers; else None."""
    if source.metric.fn is not accuracy:
        return None
    return int((source.sample(split, 0, range(1)).query.y >= 0).sum())


def passes_of_test(source: Source, settings: EvalSettings) -> float:
    """The number of forward passes of a test in all protocols of the source."""
    protocols = source.tested(alone=settings.inductive)
    return settings.tasks * sum(forward_passes(source, protocol, settings.steps) for protocol in protocols)


def forward_passes(source: Source, protocol: QuerySetting, steps: int) -> float:
    """The number of forward passes of single examples for a task's metric after 0 .. ``steps`` inner steps.

    A gradient counts as two more passes. In a source's first protocol, which validation uses, all queries of a task go
    together. In the others each query goes alone with the whole support set.
    """
    task = take(source.sample("test", 0, range(1)), 0)
    support, queries = leading(task.support.x), leading(task.query.x)
    a_query = 1 if protocol is source.settings[0] else COST_ALONE * (support + 1)
    return 3 * steps * support + (steps + 1) * queries * a_query
