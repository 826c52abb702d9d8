"""Mean and spread over seeds: the standard deviation, and Student's t-interval of the mean."""

import math
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Spread(NamedTuple):
    """What several seeds gave; numbers that cannot be had are None."""

    mean: float | None  # over seeds; None if a value is not finite
    sd: float | None  # standard deviation over seeds, of n - 1
    t95: float | None  # half of the t-interval of the mean over seeds
    ci95: float | None  # half of the interval over the tasks of one run, the mean over runs


def spread(values: Sequence[float | None], ci95: Sequence[float | None] = ()) -> Spread:
    """The spread of one value a seed; ``ci95`` are the intervals over tasks, one a seed as well."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    intervals = [value for value in ci95 if value is not None and math.isfinite(value)]
    tasks = math.fsum(intervals) / len(intervals) if intervals and len(intervals) == len(ci95) else None
    if not known or len(known) < len(values):
        return Spread(None, None, None, tasks)
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Spread(mean, None, None, tasks)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return Spread(mean, sd, t_quantile(len(known) - 1) * sd / math.sqrt(len(known)), tasks)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t beyond which, on both sides, Student's distribution has ``1 - confidence``, by bisection."""
    low, high = 0.0, 1.0
    while within(high, degrees) < confidence:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, degrees) < confidence else (low, middle)
    return (low + high) / 2


def within(t: float, degrees: int) -> float:
    """The probability that Student's t of so many degrees of freedom is between -t and t.

    A finite sum for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    >>> round(within(1.0, 1), 12)
    0.5
    """
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 + odd, degrees, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
