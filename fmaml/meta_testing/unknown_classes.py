"""Calibrate a model on validation tasks, and measure probabilities and refusals on test tasks.

Each query is judged alone, as in use: batch norm takes the statistics of the support set. The unknown queries of a task
are those of the next task, without the classes that both have.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..calibration import (
    USUAL_REJECT,
    Calibration,
    auroc,
    calibration_error,
    class_means,
    distance_to_nearest,
    fit_temperature,
    quantiles_of,
    seen_features,
)
from ..config.build import Experiment
from ..config.settings import EvalSettings
from ..data.ragged import without_padding
from ..data.source import ACCURACY, Source
from ..evaluation import trajectory_of
from ..head import EMPTY_CLASS_SCORE
from ..torch_fixes.support_statistics import statistics_of, with_statistics
from ..tree import take
from ..types import Batch, Theta
from .scores import interval

MOST_TASKS = 100


class Answers(NamedTuple):
    """A model's answers for the queries of one task, and for queries of other classes; on the CPU."""

    logits: Tensor  # [queries, outputs]; of classes that the task lacks, so low that their probability is 0
    y: Tensor  # int64 [queries]
    known: Tensor  # [queries]: the distance to the nearest class
    unknown: Tensor  # [queries of other classes]


class TestedCalibration(NamedTuple):
    """A model's probabilities and refusals on test tasks. The fields are those of results.json."""

    tasks: int
    temperature: float
    ece: list[float]  # the expected calibration error without and with the temperature
    auroc: list[float | None] | None  # mean over tasks and half of its 95 % interval; None: no other classes
    refused: list[float | None]  # the shares of known and of unknown queries, at the usual limit


def calibrated(
    experiment: Experiment, theta: Theta, settings: EvalSettings, known: Calibration | None = None
) -> dict[str, Any]:
    """The fields of `Calibration` and of `TestedCalibration`, for a model's metadata; {} as in `calibrate`.

    The calibration is the ``known`` one of the model, or else from validation tasks.
    """
    tasks = min(settings.tasks, MOST_TASKS)
    calibration = known or calibrate(experiment, theta, settings.steps, tasks)
    measured = measure(experiment, theta, settings.steps, tasks, calibration) if calibration else None
    return {**calibration._asdict(), **measured._asdict()} if calibration and measured else {}


def calibrate(experiment: Experiment, theta: Theta, steps: int, tasks: int) -> Calibration | None:
    """The temperature and the distances of known queries on validation tasks; None for sources without named classes.

    Also None if an output is not finite.
    """
    directions = experiment.source.form is not None
    found = answers(experiment, theta, "val", steps, tasks, directions)
    if not found:
        return None
    logits, y, known = (torch.cat([getattr(each, name) for each in found]) for name in ("logits", "y", "known"))
    distances = [float(f"{distance:.6g}") for distance in quantiles_of(known).tolist()]
    return Calibration(float(f"{fit_temperature(logits, y).item():.6g}"), distances, len(known), directions)


def measure(
    experiment: Experiment, theta: Theta, steps: int, tasks: int, calibration: Calibration
) -> TestedCalibration | None:
    """The calibration error and the AUROC on test tasks; None as in `calibrate`."""
    found = answers(experiment, theta, "test", steps, tasks, calibration.directions)
    if not found:
        return None
    errors = [error_at(found, temperature) for temperature in (1.0, calibration.temperature)]
    areas = [auroc(each.known, each.unknown) for each in found if len(each.unknown)]
    limit = calibration.limit(USUAL_REJECT)
    known, unknown = (torch.cat([getattr(each, name) for each in found]) > limit for name in ("known", "unknown"))
    refused = [known.double().mean().item(), unknown.double().mean().item() if len(unknown) else None]
    area = interval(torch.stack(areas)) if areas else None
    return TestedCalibration(len(found), calibration.temperature, errors, [*area] if area else None, refused)


def error_at(found: list[Answers], temperature: float) -> float:
    """The calibration error with a temperature, over the queries of all tasks."""
    confidence = torch.cat([(each.logits / temperature).softmax(1).amax(1) for each in found])
    right = torch.cat([each.logits.argmax(1) == each.y for each in found])
    return calibration_error(confidence, right).item()


@torch.no_grad()
def answers(
    experiment: Experiment, theta: Theta, split: str, steps: int, tasks: int, directions: bool
) -> list[Answers]:
    """The answers for each of the first tasks of a split; [] for sources without named classes."""
    source = experiment.source
    if source.classes_of is None or source.metric.name != ACCURACY.name:
        return []
    found = [answers_of_task(experiment, theta, split, steps, number, directions) for number in range(tasks)]
    finite = all(bool(x.isfinite().all()) for each in found for x in each)
    return found if finite else []


def answers_of_task(
    experiment: Experiment, theta: Theta, split: str, steps: int, number: int, directions: bool
) -> Answers:
    """The answers for one task of a split; ``directions`` as in `distance_to_nearest`."""
    source, algorithm, apply = experiment.source, experiment.algorithm, experiment.model.apply
    both = source.sample(split, 0, range(number, number + 2))
    task, following = (take(both, i) for i in (0, 1))
    support, query = without_padding(task.support), without_padding(task.query)
    ways = int(support.y.max()) + 1
    others = queries_of_others(source, split, number, ways, without_padding(following.query))
    phi = trajectory_of(algorithm, theta, task.support, steps if algorithm.trajectory else None)[-1]
    adapted = with_statistics(apply, statistics_of(apply, phi, support.x))
    seen = [seen_features(adapted, phi, x, source.outputs) for x in (support.x, query.x, others)]
    means = class_means(seen[0], support.y, ways)
    known, unknown = (distance_to_nearest(each, means, directions=directions).float().cpu() for each in seen[1:])
    logits = adapted(phi, query.x).float().cpu()
    logits[:, ways:] = EMPTY_CLASS_SCORE
    return Answers(logits, query.y.cpu(), known, unknown)


def queries_of_others(source: Source, split: str, number: int, ways: int, query: Batch) -> Tensor:
    """The x of the next task's queries of classes that are not among the ``ways`` of task ``number``."""
    assert source.classes_of, "answers checks it"
    own, names = source.classes_of(split, 0, range(number, number + 2))
    other = [names[label] not in own[:ways] for label in query.y.tolist()]
    return query.x[torch.tensor(other, device=query.y.device)]
