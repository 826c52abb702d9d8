"""Meta-training: sample, step, log, validate, save."""

import math
from collections.abc import Callable
from typing import Any, Protocol

from .. import distributed
from ..checkpoints.progress import Progress
from ..config.build import Experiment
from ..config.settings import TrainSettings
from ..errors import Stopped
from ..evaluation import evaluate
from ..meta_testing.scores import interval, judged_queries, task_scores
from ..processes.join import Vote, mean_over_ranks
from ..types import Metrics, Task, Theta
from .nan_guard import NanGuard
from .step import TrainingStep
from .time_left import Pace


class Log(Protocol):
    """Where training writes its numbers and messages."""

    pace: Pace

    def record(self, kind: str, step: int, **numbers: Any) -> None:
        """Log one row of numbers."""
        ...

    def notify(self, line: str) -> None:
        """Show a message to the user."""
        ...


def train(
    experiment: Experiment,
    progress: Progress,
    log: Log,
    save: Callable[[Progress], None],
    settings: TrainSettings,
    test_steps: int,
) -> Progress:
    """Train on the train split up to ``settings.meta_steps``, and keep the theta with the best score on the val split.

    ``progress`` is the start or a restored checkpoint. Theta is validated after ``test_steps`` inner steps.
    ``settings.patience`` can end training earlier, in all processes at the same step. Raises RunFailed if a number is
    not finite. After a signal, saves the progress and raises Stopped.
    """
    step_fn = TrainingStep(experiment, settings, log.notify, progress.step_form)
    guard = NanGuard(step_fn, experiment.algorithm, settings)
    total = settings.tasks_of(distributed.world_size())
    vote = Vote()

    def validate(progress: Progress) -> Progress:
        guard.check_pending()
        if progress.validated == progress.state.step:
            return progress
        with log.pace.validation():
            return validate_progress(experiment, log, progress, settings, test_steps)

    def checkpoint(progress: Progress) -> Progress:
        guard.check_pending()
        step_fn.agree()
        if progress.step_form.chunk_size != step_fn.chunks.size:
            progress = progress._replace(step_form=progress.step_form._replace(chunk_size=step_fn.chunks.size))
        save(progress)
        return progress

    def due(step: int, every: int) -> bool:
        return step % every == 0 or step == settings.meta_steps

    try:
        if due(progress.state.step, settings.validate_every):  # the run may have stopped before this validation
            progress = validate(progress)
        for step in range(progress.state.step + 1, settings.meta_steps + 1):
            if settings.out_of_patience(progress.without_best):
                reason = f"{progress.without_best} validations without a new best (train.patience)"
                log.notify(f"training ended after step {step - 1}: {reason}")
                break
            tasks = experiment.source.sample("train", step, distributed.task_range(total))
            logged = due(step, settings.log_every) or step == 1
            scores = scores_before_and_after(experiment, progress.state.theta, tasks, total) if logged else None
            progress, metrics, skip_reason = advance(guard, progress, tasks)
            progress = progress._replace(step_form=step_fn.form)
            log.pace.stepped()
            log_step(log, step, metrics, scores, skip_reason, total)
            if due(step, settings.validate_every):
                progress = validate(progress)
            if due(step, settings.save_every):
                progress = checkpoint(progress)
            vote.stop_if_any(metrics)
    except Stopped:
        checkpoint(progress)
        raise
    return progress


def advance(guard: NanGuard, progress: Progress, tasks: Task) -> tuple[Progress, Metrics, str]:
    """Take one meta-step: the progress after it, its metrics, and the reason if it was skipped (else "")."""
    state, metrics, skip_reason = guard(progress.state, tasks, progress.skipped)
    skipped = progress.skipped + bool(skip_reason)
    return progress._replace(state=state, skipped=skipped), metrics, skip_reason


def log_step(
    log: Log, step: int, metrics: Metrics, scores: dict[str, float] | None, skip_reason: str, meta_batch: int
) -> None:
    """Log a skipped step, or a step with computed ``scores``; other steps are not logged."""
    if skip_reason:
        log.record("skipped", step, why=skip_reason)
    elif scores is not None:
        query_loss = float(metrics["query_loss"])  # waits for the device, so it must come before reading the clock
        tasks_per_second = meta_batch * log.pace.steps_a_second()
        log.record("train", step, query_loss=query_loss, **scores, tasks_per_second=tasks_per_second)


def validate_progress(
    experiment: Experiment, log: Log, progress: Progress, settings: TrainSettings, test_steps: int
) -> Progress:
    """Score theta on the val split, and return the updated progress."""
    step, theta = progress.state.step, progress.model
    tasks, chunk = settings.validate_tasks, settings.meta_batch
    scores = task_scores(experiment, experiment.source.settings[0], theta, "val", tasks, test_steps, chunk)
    score = interval(scores[:, -1], judged_queries(experiment.source, "val"))
    log.record("val", step, score=score.mean, ci95=score.ci95)
    if math.isnan(score.mean):
        log.notify(f"step {step}: the network diverges on validation tasks; this theta is not kept as the best")
    progress = progress._replace(validated=step)
    higher_is_better = score.mean if experiment.source.metric.more_is_better else -score.mean
    if higher_is_better > progress.best:
        return progress._replace(best=higher_is_better, best_theta=theta, without_best=0)
    return progress._replace(without_best=progress.without_best + 1)


def scores_before_and_after(experiment: Experiment, theta: Theta, tasks: Task, total: int) -> dict[str, float]:
    """The mean metric of a meta-batch before and after adaptation; ``total`` counts the tasks of all processes."""
    metric_fn = experiment.source.settings[0](experiment.model.apply, experiment.source.metric.fn)
    batching = "loop" if experiment.looped else "vmap"
    mean = evaluate(experiment.algorithm, metric_fn, theta, tasks, batching=batching).mean(0)
    return mean_over_ranks({"before": float(mean[0]), "after": float(mean[-1])}, total)
