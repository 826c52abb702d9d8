"""Training and meta-testing: sample, step, log, evaluate, save."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .build import Experiment
from .losses import inductive, transductive
from .outer import evaluate, init_state, meta_step
from .ranges import Count, Natural, Rate
from .types import MetricFn, Task, Theta


class Interval(NamedTuple):
    """A mean over tasks and half the width of its 95 % confidence interval."""

    mean: float
    ci95: float


class Log(Protocol):
    """Where a run's numbers go."""

    def record(self, kind: str, step: int, **numbers: Any) -> None: ...


def train(
    experiment: Experiment,
    theta: Theta,
    log: Log,
    save: Callable[[str, Theta], None],
    test_steps: int,
    *,
    meta_steps: Natural,
    meta_batch: Count,
    schedule: Literal["constant", "cosine"] = "constant",
    clip: Rate | None = None,
    batching: Literal["vmap", "loop", "auto"] = "auto",
    chunk_size: Count | None = None,
    validate_every: Count = 500,
    validate_tasks: Count = 200,
    log_every: Count = 20,
) -> Theta:
    """Train for ``meta_steps`` on the train split; returns the theta that did best on the val split.

    ``schedule`` and ``clip`` shape the outer optimizer, which `fmaml.build` has made of them.
    """
    step_fn = partial(meta_step, experiment.algorithm, experiment.optimizer, batching=batching, chunk_size=chunk_size)
    validate = partial(
        scores, experiment, transductive, split="val", tasks=validate_tasks, steps=test_steps, chunk=meta_batch
    )
    state = init_state(experiment.algorithm, experiment.optimizer, theta)
    best, best_theta = -math.inf, state.theta
    clock, since = time.perf_counter(), 0

    for step in range(1, meta_steps + 1):
        tasks = experiment.source.sample("train", step, range(meta_batch))
        last = step == meta_steps
        before_after = peek(experiment, state.theta, tasks) if step % log_every == 0 or last or step == 1 else None
        state, metrics = step_fn(state, tasks)

        if before_after is not None:
            query_loss = float(metrics["query_loss"])
            now = time.perf_counter()
            rate = (step - since) * meta_batch / (now - clock)
            clock, since = now, step
            log.record("train", step, query_loss=query_loss, **before_after, tasks_per_second=rate)

        if step % validate_every == 0 or last:
            paused = time.perf_counter()
            score = interval(validate(state.theta)[:, -1])
            log.record("val", step, accuracy=score.mean, ci95=score.ci95)
            if score.mean > best:
                best, best_theta = score.mean, state.theta
                save("best", best_theta)
            save("last", state.theta)
            clock += time.perf_counter() - paused
    return best_theta


def meta_test(experiment: Experiment, theta: Theta, *, tasks: Count = 600, steps: Natural = 10) -> dict[str, Any]:
    """Adapt to ``tasks`` tasks of unseen classes; the metric after 0 .. ``steps`` inner steps, in both settings.

    Returns {"transductive": [steps + 1 intervals], "inductive": the same}.
    """
    return {
        setting.__name__: [interval(column) for column in scores(experiment, setting, theta, "test", tasks, steps).T]
        for setting in (transductive, inductive)
    }


def scores(
    experiment: Experiment,
    setting: Callable[..., MetricFn],
    theta: Theta,
    split: str,
    tasks: int,
    steps: int,
    chunk: int = 16,
) -> Tensor:
    """The metric for each task and inner step, [tasks, steps + 1], on the tasks 0 .. of a split; on the CPU."""
    metric_fn = setting(experiment.model.apply, experiment.metric)
    rows = [
        evaluate(experiment.algorithm, metric_fn, theta, batch, steps=steps).cpu()
        for batch in batches(experiment, split, tasks, chunk)
    ]
    return torch.cat(rows)


def batches(experiment: Experiment, split: str, tasks: int, chunk: int) -> Iterator[Task]:
    """The tasks 0 .. of a split, ``chunk`` at a time."""
    for first in range(0, tasks, chunk):
        yield experiment.source.sample(split, 0, range(first, min(first + chunk, tasks)))


def peek(experiment: Experiment, theta: Theta, tasks: Task) -> dict[str, float]:
    """Accuracy on a meta-batch before and after adaptation."""
    metric_fn = transductive(experiment.model.apply, experiment.metric)
    mean = evaluate(experiment.algorithm, metric_fn, theta, tasks).mean(0)
    return {"accuracy_before": float(mean[0]), "accuracy_after": float(mean[-1])}


def interval(values: Tensor) -> Interval:
    """Mean and 1.96 standard errors of one number a task; ``values`` [tasks]."""
    spread = values.double().std().item() if len(values) > 1 else math.nan
    return Interval(values.double().mean().item(), 1.96 * spread / math.sqrt(len(values)))
