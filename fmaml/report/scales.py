"""From numbers to places on a chart: ranges that begin and end at round numbers, and the numbers on an axis."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

Write = Callable[[float], str]  # a number of an axis as text
ROUND = (1, 2, 2.5, 5, 10)


class Scale(NamedTuple):
    """A range of an axis and the numbers that are written on it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where the value is: 0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


def scale_of(values: Iterable[float | None], least: float | None = None, most: float | None = None) -> Scale:
    """The scale that holds all finite values; ``least`` and ``most`` are ends that it must have."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    low = min(found, default=0.0) if least is None else least
    high = max(found, default=1.0) if most is None else most
    if not high > low:  # one value, or ends that leave out all of them
        high = low + (abs(low) or 1.0)
    step = round_step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    low, high = (first * step if least is None else low), (last * step if most is None else high)
    inside = (number * step for number in range(first, last + 1))
    return Scale(low, high, tuple(tick for tick in inside if low - step / 1e6 <= tick <= high + step / 1e6))


def whole_scale(highest: int) -> Scale:
    """The scale of the whole numbers from 0 to ``highest``."""
    step = max(1, math.ceil(round_step(highest / 10) if highest > 10 else 1))
    return Scale(0, max(1, highest), tuple(range(0, highest + 1, step)))


def round_step(least: float) -> float:
    """The smallest round number of at least ``least``."""
    size = 10.0 ** math.floor(math.log10(least))
    return next(size * factor for factor in ROUND if size * factor >= least * (1 - 1e-9))


def plain_number(value: float) -> str:
    """A number of an axis, such as 2,000 or 0.25."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.6g}"
