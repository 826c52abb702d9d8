"""Calibrate an adapted model on the user's own pictures, by cross-validation.

A tenth of the pictures is left out in turn, which gives distances and logits of known pictures. Then each class is left
out in turn, which shows how many pictures of an unknown class are refused.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..calibration import USUAL_REJECT, Calibration, auroc, fit_temperature, quantiles_of
from ..errors import Error
from .cross_validation import FOLDS
from .learner import Learner

CLASSES_LEFT_OUT = 10  # at most
LEAST_FOR_LIMIT = 20  # pictures: one of them is 5 %
LEAST_FOR_TEMPERATURE = 50  # pictures; fewer give a temperature by chance
LEAST_MISTAKES = 5  # without mistakes the best temperature is 0


class OwnCalibration(NamedTuple):
    """The calibration from a user's pictures, as far as they are enough; the rest is the model's."""

    calibration: Calibration
    pictures: int  # that were left out in turn
    own_temperature: bool
    others: Tensor | None  # the distances of pictures of a class that was left out; None for two classes
    area: float | None  # the AUROC of these against the known pictures

    @property
    def refused(self) -> int:
        """The number of pictures of a class left out that are refused at the usual limit."""
        return 0 if self.others is None else int((self.others > self.calibration.limit(USUAL_REJECT)).sum())


def calibrate_on(learner: Learner, by_class: dict[str, Tensor], steps: int | None = None) -> OwnCalibration | None:
    """The calibration from a user's pictures; None if fewer than 20 can be left out, or adaptation fails.

    Args:
        learner: a model for classes.
        by_class: class -> x [n, *inputs], as `read_support` returns it.
        steps: as in `Learner.adapt`.
    """
    if sum(len(x) for x in by_class.values() if len(x) > 1) < LEAST_FOR_LIMIT:
        return None
    try:
        logits, y, known = map(torch.cat, zip(*left_out_pictures(learner, by_class, steps), strict=True))
    except (Error, ValueError):  # such as a network that diverges; the model's calibration stays
        return None
    mistakes = int((logits.argmax(1) != y).sum())
    own_temperature = len(y) >= LEAST_FOR_TEMPERATURE and mistakes >= LEAST_MISTAKES
    model: dict[str, Any] = learner.metadata.get("calibration") or {"temperature": 1.0}
    temperature = fit_temperature(logits, y).item() if own_temperature else model["temperature"]
    try:
        others = torch.cat([*left_out_classes(learner, by_class, steps)]) if len(by_class) > 2 else None
    except (Error, ValueError):  # an algorithm may take no other number of classes
        others = None
    area = None if others is None else auroc(known, others).item()
    calibration = Calibration(temperature, quantiles_of(known).tolist())
    return OwnCalibration(calibration, len(y), own_temperature, others, area)


def left_out_pictures(
    learner: Learner, by_class: dict[str, Tensor], steps: int | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits, labels and distances of each tenth, from a model that learnt the others."""
    names = sorted(by_class)
    several = [i for i, name in enumerate(names) if len(by_class[name]) > 1]
    before = {i: sum(len(by_class[names[j]]) for j in several if j < i) for i in several}
    for part in range(FOLDS):  # consecutive pictures are in different parts, so a class always keeps one
        out = {i: (torch.arange(len(by_class[names[i]])) + before[i]) % FOLDS == part for i in several}
        if not any(bool(each.any()) for each in out.values()):
            continue
        known = {name: by_class[name][~out[i]] if i in out else by_class[name] for i, name in enumerate(names)}
        adapted = learner.adapt(known, steps=steps)
        x = torch.cat([by_class[names[i]][out[i]] for i in several])
        y = torch.cat([torch.full((int(out[i].sum()),), i) for i in several])
        yield adapted.outputs(x), y, adapted.distances(x)


def left_out_classes(learner: Learner, by_class: dict[str, Tensor], steps: int | None) -> Iterator[Tensor]:
    """The distances of one class's pictures, from a model that learnt the other classes; for up to ten classes."""
    names = sorted(by_class)
    for name in names[:: -(-len(names) // CLASSES_LEFT_OUT)]:
        others = {other: x for other, x in by_class.items() if other != name}
        yield learner.adapt(others, steps=steps).distances(by_class[name])
