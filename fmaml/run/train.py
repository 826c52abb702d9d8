"""Meta-training: sample, step, log, validate, save."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..config.settings import TrainSettings
from ..errors import Stopped
from ..losses import transductive
from ..outer import evaluate, init_state
from ..types import Metrics, Params, Task, Theta
from .build import Experiment
from .meta_test import interval, scores
from .nan_guard import NanGuard
from .signals import poll
from .step import training_step
from .store.checkpoint_store import Progress


class Log(Protocol):
    """Where a run's numbers go."""

    def record(self, kind: str, step: int, **numbers: Any) -> None: ...

    def say(self, line: str) -> None: ...


def first_progress(experiment: Experiment, params: Params) -> Progress:
    """Before the first meta-step, from the model's initial parameters."""
    state = init_state(experiment.algorithm, experiment.optimizer, params)
    return Progress(state, -math.inf, state.theta)


def train(
    experiment: Experiment,
    progress: Progress,
    log: Log,
    save: Callable[[Progress], None],
    settings: TrainSettings,
    test_steps: int,
) -> Progress:
    """Train on the train split up to ``settings.meta_steps``, and keep the theta that did best on the val split.

    ``progress`` is `first_progress`, or what was saved last; the theta is judged after ``test_steps`` inner steps.
    """
    guard = NanGuard(training_step(experiment, progress.state.theta, settings, log.say), experiment.algorithm, settings)
    throughput = Throughput(progress.state.step, settings.meta_batch)

    def validate(progress: Progress) -> Progress:
        guard.settle()
        with throughput.paused():
            return validated(experiment, log, progress, settings, test_steps)

    def checkpoint(progress: Progress) -> None:
        guard.settle()
        save(progress)

    def due(step: int, every: int) -> bool:
        return step % every == 0 or step == settings.meta_steps

    try:
        if due(progress.state.step, settings.validate_every):  # a stop may have come before
            progress = validate(progress)
        for step in range(progress.state.step + 1, settings.meta_steps + 1):
            tasks = experiment.source.sample("train", step, range(settings.meta_batch))
            looked_at = due(step, settings.log_every) or step == 1
            peeked = peek(experiment, progress.state.theta, tasks) if looked_at else None
            progress, metrics, skipped = advance(guard, progress, tasks)
            record(log, step, metrics, peeked, skipped, throughput)
            if due(step, settings.validate_every):
                progress = validate(progress)
            if due(step, settings.save_every):
                checkpoint(progress)
            poll()
    except Stopped:
        checkpoint(progress)
        raise
    return progress


def advance(guard: NanGuard, progress: Progress, tasks: Task) -> tuple[Progress, Metrics, str]:
    """One meta-step: the progress after it, its metrics, and why it was skipped ("": it was not)."""
    state, metrics, skipped = guard(progress.state, tasks, progress.skipped)
    return progress._replace(state=state, skipped=progress.skipped + bool(skipped)), metrics, skipped


def record(
    log: Log, step: int, metrics: Metrics, peeked: dict[str, float] | None, skipped: str, throughput: "Throughput"
) -> None:
    """Log a step that was skipped, or one that was looked at."""
    if skipped:
        log.record("skipped", step, why=skipped)
    elif peeked is not None:
        query_loss = float(metrics["query_loss"])  # waits for the device: the clock is read after it
        log.record("train", step, query_loss=query_loss, **peeked, tasks_per_second=throughput.since_last(step))


class Throughput:
    """How many tasks a second are trained on."""

    def __init__(self, step: int, meta_batch: int) -> None:
        self.step, self.meta_batch, self.clock = step, meta_batch, time.perf_counter()

    def since_last(self, step: int) -> float:
        """From the step of the last call to this one."""
        now = time.perf_counter()
        rate = (step - self.step) * self.meta_batch / (now - self.clock)
        self.step, self.clock = step, now
        return rate

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time that passes in here."""
        begun = time.perf_counter()
        yield
        self.clock += time.perf_counter() - begun


def validated(
    experiment: Experiment, log: Log, progress: Progress, settings: TrainSettings, test_steps: int
) -> Progress:
    """The progress with its theta judged on the val split, unless that was done."""
    step, theta = progress.state.step, progress.state.theta
    if progress.validated == step:
        return progress
    tasks, chunk = settings.validate_tasks, settings.meta_batch
    score = interval(scores(experiment, transductive, theta, "val", tasks, test_steps, chunk)[:, -1])
    log.record("val", step, score=score.mean, ci95=score.ci95)
    progress = progress._replace(validated=step)
    signed = score.mean if experiment.source.metric.more_is_better else -score.mean
    return progress._replace(best=signed, best_theta=theta) if signed > progress.best else progress


def peek(experiment: Experiment, theta: Theta, tasks: Task) -> dict[str, float]:
    """The metric on a meta-batch before and after adaptation."""
    metric_fn = transductive(experiment.model.apply, experiment.source.metric.fn)
    mean = evaluate(experiment.algorithm, metric_fn, theta, tasks).mean(0)
    return {"before": float(mean[0]), "after": float(mean[-1])}
