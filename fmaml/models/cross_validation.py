"""Cross-validation on a support set: each example is predicted by a network that has learnt the others.

Two simple methods are measured too, to show whether the model is worth it on these classes.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..calibration import distance_to_nearest
from ..intervals import wilson_interval
from ..types import Batch
from .kept_support import KeptSupport, apply_head, why_not_kept
from .learner import Adapted

LEFT_OUT_IN_TURN = 30  # up to so many examples, each is left out alone
FOLDS = 10  # for more examples
RIDGE_PENALTY = 1.0
CELLS, ORIENTATIONS, SHADES = 4, 8, 4  # simple features: cells for each side, edge directions, shades for each channel

Predict: TypeAlias = Callable[[Batch, Tensor], Tensor]  # (training examples, x [n, ..]) -> classes int64 [n]


class Score(NamedTuple):
    """The examples that a method predicts correctly."""

    method: str
    right: Tensor  # bool [examples]

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions."""
        return self.right.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson_interval(int(self.right.sum()), len(self.right))


class LeftOut(NamedTuple):
    """The answers for the examples of a support set that can be left out: all but the only one of a class."""

    x: Tensor  # [examples, ..] in the order of the kept support set, as are the others: features, or inputs
    y: Tensor  # int64 [examples]
    logits: Tensor  # [examples, classes]
    distances: Tensor  # [examples]: to the nearest class mean
    how: str  # such as "each left out in turn"


class OwnAccuracy(NamedTuple):
    """The accuracy on a user's examples; the only example of a class cannot be left out."""

    how: str  # such as "each left out in turn"
    scores: list[Score]  # the model first, then the simple methods
    classes: list[tuple[str, int, int]]  # class, the model's correct predictions, predictions
    untested: list[str]  # classes of one example

    @property
    def better(self) -> Score | None:
        """The best simple method if it is better than the model, else None."""
        model, *simple = self.scores
        best = max(simple, key=lambda score: score.accuracy, default=model)
        return best if best.accuracy > model.accuracy else None


def leave_out(adapted: Adapted) -> LeftOut | None:
    """The answers for examples by networks that learnt the others; None if no class has two examples.

    Up to 30 examples are left out one by one, more in ten parts. Raises ValueError if the network keeps no support set,
    and ValueError and Error as `Learner.adapt`.
    """
    kept, learner = examples_of(adapted), adapted.learner
    x, y = kept.support
    several = y.bincount()[y] > 1
    if not several.any():
        return None
    folds = folds_of(y, several)
    logits, distances = torch.zeros(len(y), len(adapted.classes)), torch.zeros(len(y))
    for part in folds[several].unique():
        out = folds == part
        fitted = learner.adapt_to(kept._replace(support=Batch(x[~out], y[~out])), adapted.classes)
        found = answers_for_kept(fitted, x[out])
        logits[out], distances[out] = (each.to(logits) for each in found)
    return LeftOut(x[several], y[several], logits[several], distances[several], describe_folds(int(several.sum())))


def cross_validate(adapted: Adapted, found: LeftOut) -> OwnAccuracy:
    """The accuracy of a model on the examples that it was adapted to, from `leave_out`.

    The simple methods need the pictures, which a file may not keep.
    """
    assert adapted.kept is not None, "or nothing was left out"
    scores = [Score(str(adapted.metadata["name"]), found.logits.argmax(1) == found.y)]
    x, y = sorted_by_class(adapted.kept).support
    several = y.bincount()[y] > 1
    methods: dict[str, Predict] = {}
    if not adapted.kept.of_features:
        methods["nearest example, by pixels"] = by_nearest
        if x.ndim == 4:
            methods["linear model of colours and edges"] = by_ridge
    for name, predict in methods.items():
        inputs = simple_features(x) if predict is by_ridge else x
        predicted = cross_predict(predict, Batch(inputs, y), folds_of(y, several))
        scores.append(Score(name, (predicted == y)[several]))
    right, count = scores[0].right, found.y.bincount(minlength=len(adapted.classes)).tolist()
    tested = [(name, int(right[found.y == i].sum()), count[i]) for i, name in enumerate(adapted.classes) if count[i]]
    untested = [name for i, name in enumerate(adapted.classes) if not count[i]]
    return OwnAccuracy(found.how, scores, tested, untested)


def examples_of(adapted: Adapted) -> KeptSupport:
    """The support set sorted by class: its features if they are enough; ValueError if it was not kept."""
    if adapted.kept is None:
        raise ValueError(why_not_kept(adapted.blueprint))
    return sorted_by_class(adapted.kept_features or adapted.kept)


def sorted_by_class(kept: KeptSupport) -> KeptSupport:
    """The same examples, sorted by class."""
    order = kept.support.y.argsort(stable=True)
    return kept._replace(support=Batch(kept.support.x[order], kept.support.y[order]))


def answers_for_kept(adapted: Adapted, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits [n, classes] and distances [n] for x as in the kept support set: features, or network inputs."""
    assert adapted.means is not None, "it has classes"
    if adapted.kept and adapted.kept.of_features:
        logits = apply_head(adapted.blueprint.algorithm["head"], adapted.params, x)
        return logits, distance_to_nearest(x, adapted.means, directions=adapted.by_directions)
    scaling = adapted.blueprint.scaling
    x = x if scaling is None else scaling.units(x)
    return adapted.outputs(x), adapted.distances(x)


def describe_folds(count: int) -> str:
    """How so many examples are left out."""
    return "each left out in turn" if count <= LEFT_OUT_IN_TURN else "a tenth of them left out in turn"


def folds_of(y: Tensor, several: Tensor) -> Tensor:
    """The part in which each example is left out, int64 [examples]; -1 (never) if ``several`` is false.

    The examples of a class are spread over the parts, so no part has all of them.
    """
    count = int(several.sum())
    parts = count if count <= LEFT_OUT_IN_TURN else FOLDS
    folds = torch.full_like(y, -1)
    folds[several] = torch.arange(count) % parts
    return folds


def cross_predict(predict: Predict, examples: Batch, folds: Tensor) -> Tensor:
    """The prediction of each example from those in other parts, int64 [examples]; -1 if it is never left out."""
    found = torch.full_like(examples.y, -1)
    for part in folds[folds >= 0].unique():
        out = folds == part
        found[out] = predict(Batch(examples.x[~out], examples.y[~out]), examples.x[out])
    return found


def by_nearest(known: Batch, x: Tensor) -> Tensor:
    """The class of the nearest example, by pixels."""
    return known.y[torch.cdist(x.flatten(1).float(), known.x.flatten(1).float()).argmin(1)]


def by_linear_model(known: Batch, x: Tensor) -> Tensor:
    """The class by ridge regression from simple features of images."""
    return by_ridge(Batch(simple_features(known.x), known.y), simple_features(x))


def by_ridge(known: Batch, x: Tensor) -> Tensor:
    """The class by ridge regression from standardised features [n, features]."""
    features = known.x
    mean, spread = features.mean(0), features.std(0) + 1e-3
    features = F.pad((features - mean) / spread, (0, 1), value=1.0)
    targets = F.one_hot(known.y).double()
    kernel = features @ features.T
    weights = features.T @ torch.linalg.solve(
        kernel + RIDGE_PENALTY * len(features) * torch.eye(len(kernel)).double(), targets
    )
    return (F.pad((x - mean) / spread, (0, 1), value=1.0) @ weights).argmax(-1)


def simple_features(x: Tensor) -> Tensor:
    """Histograms of colours, and of edge directions in 4x4 cells, of images in [0, 1]: float64 [n, features]."""
    return torch.cat([colours(x), edges(x)], 1).double()


def colours(x: Tensor) -> Tensor:
    """The fraction of pixels of each colour, with four shades for each channel: [n, 4**channels]."""
    shades = (x * SHADES).long().clamp(0, SHADES - 1).flatten(2)  # [n, channels, pixels]
    powers = SHADES ** torch.arange(x.shape[1])
    colour = (shades * powers[:, None]).sum(1)
    return F.one_hot(colour, SHADES ** x.shape[1]).float().mean(1)


def edges(x: Tensor) -> Tensor:
    """The strength of edges in eight directions in each of 4x4 cells: [n, 128], normalised to length 1."""
    grey = x.mean(1, keepdim=True)
    dx = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    dy = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    direction = (torch.atan2(dy, dx) / torch.pi % 1 * ORIENTATIONS).long().clamp(0, ORIENTATIONS - 1)
    strength = torch.zeros(len(x), ORIENTATIONS, *dx.shape[2:]).scatter_(1, direction, (dx**2 + dy**2).sqrt())
    return F.normalize(F.adaptive_avg_pool2d(strength, CELLS).flatten(1), dim=1)
