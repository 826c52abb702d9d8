"""How far to trust a classifier: honest probabilities, and pictures that fit none of its classes.

One number, the temperature, divides the logits (Guo et al., arXiv 1706.04599). A picture is refused if its features are
far from the mean of every class (Lee et al., arXiv 1807.03888, with the identity as covariance). Features of images are
scaled to length 1 first: a photograph sharper than those in training has longer ones, and is not unknown for that. The
distances of known pictures, measured on validation tasks, give the limit.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .head import features
from .losses import Apply
from .types import Params

BINS = 15  # of confidence, as in the paper
QUANTILES = 100  # steps between the stored distances
LARGEST_LOG = math.log(100.0)  # temperatures are searched from 1 / 100 to 100
NONE = "none of these"
USUAL_REJECT = 0.05  # the share of known pictures that may be refused


class Calibration(NamedTuple):
    """Facts about a classifier from pictures of known classes that it did not learn from.

    >>> from fmaml.calibration import Calibration
    >>> Calibration(2.0, [0.0, 1.0]).limit(reject=0.25)
    0.75
    """

    temperature: float  # divides the logits
    distances: list[float]  # quantiles, from the nearest picture to the farthest, in equal steps
    pictures: int = 0  # that were measured; 0: not stored
    directions: bool = False  # the distances are those of features of length 1

    @property
    def least_reject(self) -> float:
        """The smallest share with a limit that the pictures support: a new picture is the farthest so often."""
        return 1 / (self.pictures + 1) if self.pictures else 0.0

    def limit(self, reject: float) -> float:
        """The distance beyond which lies the share ``reject`` of known pictures."""
        place = (1 - reject) * (len(self.distances) - 1)
        low = min(int(place), len(self.distances) - 2)
        return self.distances[low] + (place - low) * (self.distances[low + 1] - self.distances[low])

    def none_of_these(self, distances: Tensor, reject: float) -> Tensor:
        """The probability of none of these against the likeliest class alone, for distances [n].

        It is 1/2 at the limit, and its log odds are linear. For a typical known picture (the median) the odds are those
        of ``reject``, squared: 0.3 % if it is 5 %. So the probabilities of the classes hardly change.
        """
        limit = self.limit(reject)
        width = max(limit - self.limit(0.5), 1e-6 * limit, 1e-12)
        return torch.sigmoid(2 * math.log((1 - reject) / reject) * (distances - limit) / width)


def read_calibration(found: Any) -> Calibration | None:
    """The calibration in a model's metadata, None if it has none; ValueError if it is not valid."""
    if found is None:
        return None
    temperature, distances = float(found["temperature"]), [float(distance) for distance in found["distances"]]
    pictures = int(found.get("pictures", 0))
    if not (2 <= len(distances) <= 1001 and all(map(math.isfinite, [temperature, *distances])) and temperature > 0):
        raise ValueError("calibration")
    if distances[0] < 0 or distances != sorted(distances) or pictures < 0:
        raise ValueError("calibration: distances")
    return Calibration(temperature, distances, pictures, bool(found.get("directions", False)))


def fit_temperature(logits: Tensor, y: Tensor) -> Tensor:
    """The temperature with the least cross entropy of logits / temperature (arXiv 1706.04599, section 4.2).

    Args:
        logits: [n, classes].
        y: int64 [n].

    Returns:
        A scalar from 1 / 100 to 100, float64. The cross entropy is convex in 1 / temperature, so bisection finds it.

    >>> import torch
    >>> from fmaml.calibration import fit_temperature
    >>> logits = torch.tensor([[3.0, 1.0]]).log().expand(4, 2)  # 3 : 1, and right three times of four
    >>> round(float(fit_temperature(5 * logits, torch.tensor([0, 0, 0, 1]))), 4)
    5.0
    """
    logits = logits.double()
    right = logits.gather(1, y[:, None]).mean()
    low, high = logits.new_tensor(-LARGEST_LOG), logits.new_tensor(LARGEST_LOG)  # of 1 / temperature
    for _ in range(60):
        middle = (low + high) / 2
        too_sure = ((logits * middle.exp()).softmax(1) * logits).sum(1).mean() > right  # the sign of the derivative
        low, high = torch.where(too_sure, low, middle), torch.where(too_sure, middle, high)
    return (-low).exp()


def calibration_error(confidence: Tensor, right: Tensor) -> Tensor:
    """The expected calibration error with 15 bins (arXiv 1706.04599, equation 3): a scalar from 0 to 1.

    Args:
        confidence: [n], the probability of each prediction.
        right: bool [n].

    >>> import torch
    >>> from fmaml.calibration import calibration_error
    >>> calibration_error(torch.full((4,), 0.75), torch.tensor([True, True, False, False]))
    tensor(0.2500, dtype=torch.float64)
    """
    confidence = confidence.double()
    which = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    excess = confidence - right.double()
    return excess.new_zeros(BINS).index_add(0, which, excess).abs().sum() / len(right)


def auroc(known: Tensor, unknown: Tensor) -> Tensor:
    """The area under the ROC curve: the probability that an unknown picture is farther than a known one.

    Equal distances count half. ``known`` is [n], ``unknown`` [m].

    >>> import torch
    >>> from fmaml.calibration import auroc
    >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    tensor(0.8750, dtype=torch.float64)
    """
    order = known.sort().values
    below, up_to = torch.searchsorted(order, unknown), torch.searchsorted(order, unknown, right=True)
    return (below + up_to).double().mean() / (2 * len(known))


def quantiles_of(distances: Tensor) -> Tensor:
    """101 quantiles of the distances [n], from the least to the largest: what `Calibration` stores."""
    order = distances.double().sort().values
    place = torch.linspace(0, len(order) - 1, QUANTILES + 1, dtype=torch.float64, device=order.device)
    low = place.long().clamp(max=max(len(order) - 2, 0))
    return torch.lerp(order[low], order[(low + 1).clamp(max=len(order) - 1)], place - low)


def last_layer(params: Params, outputs: int) -> str | None:
    """The name of the last linear layer with a bias and this number of outputs; None if there is none."""
    names = [
        name.removesuffix(".weight")
        for name, value in params.items()
        if name.endswith(".weight") and value.ndim == 2 and len(value) == outputs
    ]
    return next((name for name in reversed(names) if f"{name}.bias" in params), None)


def seen_features(apply: Apply, params: Params, x: Tensor, outputs: int) -> Tensor:
    """The features [n, features] of x: the inputs of the last layer, or if it is not linear the network's outputs."""
    head = last_layer(params, outputs)
    return apply(params, x).flatten(1) if head is None else features(apply, params, x, head)


def class_means(found: Tensor, y: Tensor, classes: int) -> Tensor:
    """The mean of each class's features, [classes, features], of features [n, features] with labels y."""
    member = (y[:, None] == torch.arange(classes, device=y.device)).to(found.dtype)
    return member.T @ found / member.sum(0)[:, None]


def distance_to_nearest(found: Tensor, means: Tensor, *, directions: bool) -> Tensor:
    """The distance [n] of features [n, features] to the nearest of the means [classes, features].

    With ``directions`` both are scaled to length 1.
    """
    if directions:
        found, means = normalize(found, dim=1), normalize(means, dim=1)
    return torch.cdist(found, means, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
