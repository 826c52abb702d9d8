"""Charts as inline SVG whose colours follow the page's, and whose text keeps its size on any screen."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from .html_page import escape
from .scales import Scale, Write, plain_number, scale_of

COLORS = 6
MOST_DOTS = 500  # of one curve: more cannot be told apart, and make the page large
Values = Sequence[float | None]  # None and NaN are gaps


class Curve(NamedTuple):
    """One curve of a chart."""

    label: str
    x: Sequence[float]
    y: Values
    half: Values = ()  # half the widths of the intervals around y; () for none
    color: int = 0
    kind: str = "curve"
    """"curve" or "curve dashed"; "raw": pale points without a line; "raw points": clear ones; "dots": points with a
    line and whiskers."""


class IntervalRow(NamedTuple):
    """One row of a chart of intervals."""

    label: str
    value: float | None
    half: float | None
    text: str
    color: int = 0


def line_chart(
    title: str,
    x_label: str,
    curves: Sequence[Curve],
    x: Scale,
    y: Scale,
    write_y: Write = plain_number,
    write_x: Write = plain_number,
) -> str:
    """A chart of curves over a common axis, with a legend; ``title`` says what y is, for those who cannot see it too.

    What lies outside of the scales is not drawn. Curves without a label have no place in the legend.
    """
    shapes = "".join(_shapes(curve, x, y) for curve in curves)
    marks = "".join(_points(curve, x, y, write_x, write_y) for curve in curves if curve.kind == "dots")
    return (
        f"<figure>\n{legend([(curve.label, curve.color) for curve in curves if curve.label])}\n"
        f'<div class="plot"><svg role="img" aria-label="{escape(title)}">{_axes(x, y, write_x, write_y)}'
        f'<svg width="100%" height="100%" viewBox="0 0 1000 1000" preserveAspectRatio="none">{shapes}</svg>{marks}'
        f'<text x="50%" y="100%" dy="2.9em" text-anchor="middle">{escape(x_label)}</text></svg></div>\n</figure>'
    )


def legend(entries: Sequence[tuple[str, int]]) -> str:
    """The labels, each beside its colour."""
    items = "".join(f'<li><i class="c{color % COLORS}"></i>{escape(label)}</li>' for label, color in entries)
    return f'<ul class="legend">{items}</ul>' if items else ""


def _axes(x: Scale, y: Scale, write_x: Write, write_y: Write) -> str:
    """The lines of the grid and the numbers beside them."""
    parts: list[str] = []
    for tick in y.ticks:
        at = _percent(1 - y.place(tick))
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="0" y="{at}" dx="-.6em" dy=".32em" text-anchor="end">{escape(write_y(tick))}</text>')
    for tick in x.ticks:
        at = _percent(x.place(tick))
        parts.append(f'<text x="{at}" y="100%" dy="1.4em" text-anchor="middle">{escape(write_x(tick))}</text>')
    return "".join(parts)


def _shapes(curve: Curve, x: Scale, y: Scale) -> str:
    """The curve as a path in a square of 1000 units."""
    places = [
        None if not _is_number(value) else f"{1000 * x.place(at):.1f} {1000 * (1 - y.place(value)):.1f}"
        for at, value in zip(curve.x, curve.y, strict=True)
    ]
    if curve.kind.startswith("raw"):
        every = math.ceil(len(places) / MOST_DOTS) or 1
        steps = [f"M{place}h0" for place in places[::every] if place]
    else:
        before = [None, *places[:-1]]
        steps = [f"{'L' if last else 'M'}{place}" for last, place in zip(before, places, strict=True) if place]
    kind = "curve" if curve.kind == "dots" else curve.kind
    return f'<path class="{kind} c{curve.color % COLORS}" d="{"".join(steps)}"/>' if steps else ""


def _points(curve: Curve, x: Scale, y: Scale, write_x: Write, write_y: Write) -> str:
    """The points of a curve with their intervals, each with a text that appears where one points at it."""
    parts: list[str] = []
    for at, value, half in zip(curve.x, curve.y, curve.half or [None] * len(curve.x), strict=True):
        if not _is_number(value):
            continue
        across = _percent(x.place(at))
        whisker = ""
        if _is_number(half):
            ends = [_percent(1 - min(max(y.place(end), 0), 1)) for end in (value - half, value + half)]
            whisker = f'<line class="whisker" x1="{across}" x2="{across}" y1="{ends[0]}" y2="{ends[1]}"/>'
        told = f"{curve.label}, {write_x(at)}: {write_y(value)}" + (f" ± {write_y(half)}" if _is_number(half) else "")
        dot = f'<circle class="dot" cx="{across}" cy="{_percent(1 - y.place(value))}" r="3.5"/>'
        parts.append(f"<g><title>{escape(told)}</title>{whisker}{dot}</g>")
    return f'<g class="c{curve.color % COLORS}">{"".join(parts)}</g>'


def interval_chart(
    title: str, rows: Sequence[IntervalRow], scale: Scale, write: Write = plain_number, mark: float | None = None
) -> str:
    """A row for each value with its interval, over a common scale; ``mark`` is a value to compare with, such as chance.

    A row without a number shows its text alone.
    """
    lines = "".join(
        f"<span>{escape(row.label)}</span><em>{escape(row.text)}</em>"
        f'<svg class="scale wide" aria-hidden="true">{_interval(row, scale, mark)}</svg>'
        for row in rows
    )
    ticks = "".join(
        f'<text x="{_percent(scale.place(tick))}" y="1em" text-anchor="middle">{escape(write(tick))}</text>'
        for tick in scale.ticks
    )
    axis = f'<span></span><em></em><svg class="scale axis wide" aria-hidden="true">{ticks}</svg>'
    return f'<figure class="rows" role="group" aria-label="{escape(title)}">{lines}{axis}</figure>'


def _interval(row: IntervalRow, scale: Scale, mark: float | None) -> str:
    """The scale of one row, and on it the mark, the interval and the value."""
    parts = ['<line class="grid" x1="0" x2="100%" y1="50%" y2="50%"/>']
    if mark is not None:
        at = _percent(scale.place(mark))
        parts.append(f'<line class="whisker c2" stroke-dasharray="2 3" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
    if not _is_number(row.value):
        return "".join(parts)
    if _is_number(row.half):
        ends = [_percent(min(max(scale.place(end), 0), 1)) for end in (row.value - row.half, row.value + row.half)]
        line = (
            f'<line class="whisker" style="stroke-width:9;opacity:.5" x1="{ends[0]}" x2="{ends[1]}" y1="50%" y2="50%"/>'
        )
        parts.append(f'<g class="c{row.color % COLORS}">{line}</g>')
    place = _percent(scale.place(row.value))
    tick = f'<line class="whisker" style="stroke-width:2.5" x1="{place}" x2="{place}" y1="12%" y2="88%"/>'
    parts.append(f'<g class="c{row.color % COLORS}">{tick}</g>')
    return "".join(parts)


def bar_chart(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """A bar for each (label, value, text), the longest as wide as the chart."""
    longest = max((value for _, value, _ in rows if math.isfinite(value)), default=0) or 1.0
    lines = "".join(
        f"<span>{escape(label)}</span><em>{escape(text)}</em>"
        f'<div class="bar wide"><i style="width:{_percent(_part(value / longest))}"></i></div>'
        for label, value, text in rows
    )
    return f'<figure class="rows" role="group" aria-label="{escape(title)}">{lines}</figure>' if rows else ""


def smoothed(values: Values) -> list[float | None]:
    """A running mean over a twentieth of the values, of those that are numbers."""
    width = max(1, len(values) // 20)
    found: list[float | None] = []
    for i in range(len(values)):
        around = values[max(0, i - width // 2) : i + (width + 1) // 2]
        numbers = [value for value in around if _is_number(value)]
        found.append(sum(numbers) / len(numbers) if numbers and _is_number(values[i]) else None)
    return found


def ends_of_intervals(curves: Sequence[Curve]) -> list[float]:
    """The ends of all intervals of the curves, and their values: what a scale should hold."""
    found: list[float] = []
    for curve in curves:
        for value, half in zip(curve.y, curve.half or [0.0] * len(curve.y), strict=True):
            if _is_number(value):
                width = half if _is_number(half) else 0.0
                found += [value - width, value + width]
    return found


def score_scale(values: Sequence[float], is_fraction: bool) -> Scale:
    """The scale of scores: a fraction from 0 to 1, an error from 0."""
    return scale_of(values, least=0.0 if min(values, default=0.0) >= 0 else None, most=1.0 if is_fraction else None)


def _part(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"
