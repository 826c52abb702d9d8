"""Format numbers and names as text. Imports no torch."""

import math
from collections.abc import Sequence

from ..errors import printable as printable


def with_interval(mean: float | None, ci95: float | None, style: str) -> str:
    """Format a mean with half the width of its 95 % interval, such as ``98.70% ± 0.40%``.

    ``style`` is a format specification such as ".2%". None, NaN and infinity give "not finite". Without ``ci95`` only
    the mean is given.
    """
    if mean is None or not math.isfinite(mean):
        return "not finite"
    return f"{mean:{style}}" + ("" if ci95 is None else f" ± {ci95:{style}}")


def minutes_and_seconds(seconds: float) -> str:
    """A duration as text, such as "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def megabytes(size: int) -> str:
    """A number of bytes as text, such as "12.5 MB"."""
    return f"{size / 1e6:,.1f} MB"


def counted(count: int, thing: str) -> str:
    """A number of things as text, such as "1 task" or "2 tasks"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names as text, such as "a, b, c and 4 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
