"""Training and meta-testing: sample, step, log, evaluate, save."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ..data.source import QuerySetting, Source
from ..errors import Stopped
from ..losses import transductive
from ..outer import evaluate, init_state
from ..ranges import Count, Natural, Rate
from ..types import Metrics, Task, Theta
from .build import Experiment
from .nan_guard import Guard
from .signals import poll
from .step import training_step
from .store.checkpoint_store import Progress


class Interval(NamedTuple):
    """A mean over tasks and half the width of its 95 % confidence interval."""

    mean: float
    ci95: float | None  # of one task there is none


class Log(Protocol):
    """Where a run's numbers go."""

    def record(self, kind: str, step: int, **numbers: Any) -> None: ...

    def say(self, line: str) -> None: ...


def beginning(experiment: Experiment, theta: Theta) -> Progress:
    """Before the first meta-step."""
    state = init_state(experiment.algorithm, experiment.optimizer, theta)
    return Progress(state, -math.inf, state.theta)


def train(
    experiment: Experiment,
    progress: Progress,
    log: Log,
    save: Callable[[Progress], None],
    test_steps: int,
    *,
    meta_steps: Natural,
    meta_batch: Count,
    schedule: Literal["constant", "cosine"] = "constant",
    clip: Rate | None = None,
    batching: Literal["vmap", "loop", "auto"] = "auto",
    chunk_size: Count | None = None,
    compile: bool | Literal["auto"] = "auto",
    precision: Literal["float32", "tf32", "bf16"] = "float32",
    validate_every: Count = 500,
    validate_tasks: Count = 200,
    log_every: Count = 20,
    save_every: Count = 500,
    on_nan: Literal["stop", "skip"] = "stop",
    skip_limit: Count = 10,
    baseline: bool = False,
) -> Progress:
    """Train up to ``meta_steps`` on the train split, and keep the theta that did best on the val split.

    ``progress`` is `beginning`, or what was saved last. Of ``schedule``, ``clip`` and ``precision`` `fmaml.build` has
    made the experiment; ``baseline`` tells `fmaml.run` to train a second time, jointly, for comparison.
    """
    speed = {"meta_steps": meta_steps, "batching": batching, "chunk_size": chunk_size, "compile": compile}
    step_fn = training_step(experiment, progress.state.theta, log.say, **speed)
    guard, pace = Guard(step_fn, experiment.algorithm, on_nan, skip_limit), Pace(progress.state.step, meta_batch)
    validate = partial(validated, experiment, log, tasks=validate_tasks, steps=test_steps, chunk=meta_batch)
    save, validate, due = guard.settled(save), pace.pausing(guard.settled(validate)), partial(is_due, last=meta_steps)
    try:
        if due(progress.state.step, validate_every):  # a stop may have come before
            progress = validate(progress)
        for step in range(progress.state.step + 1, meta_steps + 1):
            tasks = experiment.source.sample("train", step, range(meta_batch))
            peeked = peek(experiment, progress.state.theta, tasks) if due(step, log_every) or step == 1 else None
            progress, metrics, skipped = advance(guard, progress, tasks)
            record(log, step, metrics, peeked, skipped, pace)
            if due(step, validate_every):
                progress = validate(progress)
            if due(step, save_every):
                save(progress)
            poll()
    except Stopped:
        save(progress)
        raise
    return progress


def is_due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def advance(guard: Guard, progress: Progress, tasks: Task) -> tuple[Progress, Metrics, str]:
    """One meta-step: the progress after it, its metrics, and why it was skipped ("": it was not)."""
    state, metrics, skipped = guard(progress.state, tasks, progress.skipped)
    return progress._replace(state=state, skipped=progress.skipped + bool(skipped)), metrics, skipped


def record(log: Log, step: int, metrics: Metrics, peeked: dict[str, float] | None, skipped: str, pace: "Pace") -> None:
    """Log a step that was skipped, or one that was looked at."""
    if skipped:
        log.record("skipped", step, why=skipped)
    elif peeked is not None:
        query_loss = float(metrics["query_loss"])  # waits for the device: the clock is read after it
        log.record("train", step, query_loss=query_loss, **peeked, tasks_per_second=pace.since_last(step))


class Pace:
    """How many tasks a second are trained on."""

    def __init__(self, step: int, meta_batch: int) -> None:
        self.step, self.meta_batch, self.clock = step, meta_batch, time.perf_counter()

    def since_last(self, step: int) -> float:
        """From the step of the last call to this one."""
        now = time.perf_counter()
        rate = (step - self.step) * self.meta_batch / (now - self.clock)
        self.step, self.clock = step, now
        return rate

    def pausing(self, work: Callable[[Progress], Progress]) -> Callable[[Progress], Progress]:
        """The same work, its time left out."""

        def timed(progress: Progress) -> Progress:
            paused = time.perf_counter()
            progress = work(progress)
            self.clock += time.perf_counter() - paused
            return progress

        return timed


def validated(experiment: Experiment, log: Log, progress: Progress, *, tasks: int, steps: int, chunk: int) -> Progress:
    """The progress with its theta judged on the val split, unless that was done."""
    step, theta = progress.state.step, progress.state.theta
    if progress.validated == step:
        return progress
    score = interval(scores(experiment, transductive, theta, "val", tasks, steps, chunk)[:, -1])
    log.record("val", step, score=score.mean, ci95=score.ci95)
    signed = score.mean if experiment.source.metric.more_is_better else -score.mean
    best = {"best": signed, "best_theta": theta} if signed > progress.best else {}
    return progress._replace(validated=step, **best)


def meta_test(
    experiment: Experiment, theta: Theta, *, tasks: Count = 600, steps: Natural = 10
) -> dict[str, list[Interval]]:
    """Adapt to ``tasks`` unseen tasks: for each setting of the source, the metric after 0 .. ``steps`` inner steps."""
    return {
        setting.__name__: [interval(column) for column in scores(experiment, setting, theta, "test", tasks, steps).T]
        for setting in experiment.source.settings
    }


def references(source: Source, *, tasks: int, steps: int, chunk: int = 16) -> dict[str, list[Interval]]:
    """What else the metric of the same tasks may be held against, which is the same after any number of steps."""
    if source.references is None:
        return {}
    chunks = [source.references("test", 0, part) for part in ranges(tasks, chunk)]
    scores = {label: torch.cat([part[label].cpu() for part in chunks]) for label in chunks[0]}
    return {label: [interval(values)] * (steps + 1) for label, values in scores.items()}


def scores(
    experiment: Experiment,
    setting: QuerySetting,
    theta: Theta,
    split: str,
    tasks: int,
    steps: int,
    chunk: int | None = None,
) -> Tensor:
    """The metric for each task and inner step, [tasks, steps + 1], on the tasks 0 .. of a split; on the CPU."""
    chunk = chunk or at_once(experiment.source)
    metric_fn = setting(experiment.model.apply, experiment.source.metric.fn)
    rows = [
        evaluate(experiment.algorithm, metric_fn, theta, batch, steps=steps).cpu()
        for batch in batches(experiment, split, tasks, chunk)
    ]
    return torch.cat(rows)


def at_once(source: Source) -> int:
    """How many tasks are tested in one call: 16 of the size of Omniglot's, fewer of large images."""
    return min(16, max(1, 16 * 28 * 28 // math.prod(source.inputs)))


def batches(experiment: Experiment, split: str, tasks: int, chunk: int) -> Iterator[Task]:
    """The tasks 0 .. of a split, ``chunk`` at a time."""
    for part in ranges(tasks, chunk):
        yield experiment.source.sample(split, 0, part)


def ranges(tasks: int, chunk: int) -> Iterator[range]:
    for first in range(0, tasks, chunk):
        poll()
        yield range(first, min(first + chunk, tasks))


def peek(experiment: Experiment, theta: Theta, tasks: Task) -> dict[str, float]:
    """The metric on a meta-batch before and after adaptation."""
    metric_fn = transductive(experiment.model.apply, experiment.source.metric.fn)
    mean = evaluate(experiment.algorithm, metric_fn, theta, tasks).mean(0)
    return {"before": float(mean[0]), "after": float(mean[-1])}


def interval(values: Tensor) -> Interval:
    """Mean and 1.96 standard errors of one number a task; ``values`` [tasks]."""
    mean, count = values.double().mean().item(), len(values)
    return Interval(mean, 1.96 * values.double().std().item() / math.sqrt(count) if count > 1 else None)
