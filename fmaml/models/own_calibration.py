"""Calibrate an adapted model on the user's own pictures, by cross-validation.

Pictures that were left out in turn give distances and logits of known pictures. Then each class is left out in turn,
which shows how many pictures of an unknown class are refused.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..calibration import USUAL_REJECT, Calibration, auroc, fit_temperature, quantiles_of
from ..errors import Error
from ..types import Batch
from .cross_validation import LeftOut, answers_for_kept, examples_of
from .learner import Adapted

CLASSES_LEFT_OUT = 10  # at most
LEAST_FOR_LIMIT = 20  # pictures: one of them is 5 %
LEAST_FOR_TEMPERATURE = 50  # pictures; fewer give a temperature by chance
LEAST_MISTAKES = 5  # without mistakes the best temperature is 0
NEARER = 0.75  # the share of known pictures of the model's own tasks that are farther than the least limit


class OwnCalibration(NamedTuple):
    """The calibration from a user's pictures, as far as they are enough; the rest is the model's."""

    calibration: Calibration
    how: str  # the pictures were left out
    own_temperature: bool
    others: Tensor | None  # the distances of pictures of a class that was left out; None for two classes
    area: float | None  # the AUROC of these against the known pictures

    @property
    def refused(self) -> int:
        """The number of pictures of a class left out that are refused at the usual limit."""
        return 0 if self.others is None else int((self.others > self.calibration.limit(USUAL_REJECT)).sum())


def calibrate_on(adapted: Adapted, found: LeftOut | None) -> OwnCalibration | None:
    """The calibration from a user's pictures; None if fewer than 20 different ones were left out.

    Identical pictures do not count: the distance to a copy is not that of a new picture. Nearly identical ones do, so
    the limit is never below the distance of three quarters of the known pictures of the model's own tasks.
    """
    if found is None:
        return None
    alone = have_no_copy(found.x)
    y, logits, known = found.y[alone], found.logits[alone], found.distances[alone]
    if len(y) < LEAST_FOR_LIMIT:
        return None
    own_temperature = len(y) >= LEAST_FOR_TEMPERATURE and int((logits.argmax(1) != y).sum()) >= LEAST_MISTAKES
    model = adapted.calibration or Calibration(1.0, [0.0, 0.0])
    temperature = fit_temperature(logits, y).item() if own_temperature else model.temperature
    try:
        others = torch.cat([*left_out_classes(adapted)]) if len(adapted.classes) > 2 else None
    except (Error, ValueError):  # an algorithm may take no other number of classes
        others = None
    area = None if others is None else auroc(known, others).item()
    distances = quantiles_of(known).clamp(min=model.limit(NEARER)).tolist()
    calibration = Calibration(temperature, distances, len(y), adapted.by_directions)
    return OwnCalibration(calibration, found.how, own_temperature, others, area)


def have_no_copy(x: Tensor) -> Tensor:
    """Whether each example [n, ..] differs from all others, bool [n]."""
    _, number, copies = x.flatten(1).unique(dim=0, return_inverse=True, return_counts=True)
    return copies[number] == 1


def classes_in_turn(classes: int) -> range:
    """The numbers of the classes that are left out, each in turn."""
    return range(0, classes, -(-classes // CLASSES_LEFT_OUT))


def left_out_classes(adapted: Adapted) -> Iterator[Tensor]:
    """The distances of one class's pictures, from a model that learnt the other classes; for up to ten classes."""
    kept, names = examples_of(adapted), adapted.classes
    x, y = kept.support
    for i in classes_in_turn(len(names)):
        out = y == i
        others = Batch(x[~out], y[~out] - (y[~out] > i).long())
        fitted = adapted.learner.adapt_to(kept._replace(support=others), [*names[:i], *names[i + 1 :]])
        _, distances = answers_for_kept(fitted, x[out])
        yield distances
