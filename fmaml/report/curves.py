"""Plot runs: the learning curve, and the metric by inner step. Imports no torch."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..files.figures import Axes, Figure
from .read_run import Columns, ReportedMetric

LoggedRows = Sequence[Mapping[str, Any]]  # of metrics.jsonl
FIGURE_SIZE = (7.0, 4.2)  # inches
MOST_POINTS = 500  # of one curve: more would be indistinguishable, and enlarge the page
LONGEST_LINE = 52  # characters of the text above an interval


def learning_curve(rows: LoggedRows, metric: ReportedMetric) -> Figure:
    """Plot the training and validation scores of one run against meta-steps."""
    figure = Figure(FIGURE_SIZE, layout="constrained")
    axes = figure.subplots()
    train = of_kind(rows, "train")
    curves = [("after", "training tasks, adapted", "tab:blue"), ("before", "training tasks, not adapted", "tab:gray")]
    if all(row.get("before") == row.get("after") for row in train):  # an algorithm without inner steps
        curves = curves[:1]
    for key, label, color in curves:
        draw_training(axes, train, key, color, label=label)
    draw_validation(axes, rows, "tab:orange", label="validation, adapted (95 % interval)")
    finish_axes(axes, metric, "meta-steps", "Learning curve")
    for key, _, color in curves:  # after the axes are scaled, so that one outlier does not flatten the rest
        draw_training(axes, train, key, color, window=1, alpha=0.25, linewidth=0.8)
    return figure


def learning_curves(runs: Mapping[str, LoggedRows], metric: ReportedMetric) -> Figure:
    """Plot smoothed training scores and validation scores of several runs against meta-steps, one colour per run."""
    figure = Figure(FIGURE_SIZE, layout="constrained")
    axes = figure.subplots()
    for number, (name, rows) in enumerate(runs.items()):
        draw_training(axes, of_kind(rows, "train"), "after", f"C{number}", label=legend_label(name))
        draw_validation(axes, rows, f"C{number}")
    finish_axes(axes, metric, "meta-steps", "Learning curves")
    return figure


def draw_training(axes: Axes, rows: LoggedRows, key: str, color: str, window: int | None = None, **style: Any) -> None:
    """Draw a training score as a running mean over ``window`` rows (default: a twentieth of all)."""
    values = smooth(with_gaps(row.get(key) for row in rows), window or max(1, len(rows) // 20))
    every = max(1, len(rows) // MOST_POINTS)
    axes.plot([row["step"] for row in rows][::every], values[::every], color=color, **style)


def draw_validation(axes: Axes, rows: LoggedRows, color: str, **style: Any) -> None:
    """Draw the validation scores with their 95 % intervals."""
    found = of_kind(rows, "val")
    steps, scores, widths = (with_gaps(row.get(key) for row in found) for key in ("step", "score", "ci95"))
    axes.errorbar(steps, scores, widths, fmt="o-", markersize=3, capsize=2, color=color, **style)


def by_inner_step(columns: Columns, metric: ReportedMetric, title: str, chance: float | None) -> Figure:
    """Plot the metric on unseen tasks against inner steps, one curve per label; ``chance`` is the metric of guessing.

    A value that does not depend on the inner step is a horizontal line. If all values are such, the intervals are drawn
    one below the other instead. An empty column is not drawn, but keeps its colour.
    """
    longest = max(map(len, columns.values()), default=0)
    if longest < 2:
        return intervals(columns, metric, title, chance)
    figure = Figure(FIGURE_SIZE, layout="constrained")
    axes = figure.subplots()
    for number, (label, rows) in enumerate(columns.items()):
        means, widths = (with_gaps(row[key] for row in rows) for key in ("mean", "ci95"))
        style: dict[str, Any] = {"color": f"C{number}", "label": legend_label(label)}
        if len({row["mean"] for row in rows}) == 1:
            axes.errorbar([0, longest - 1], [means[0]] * 2, fmt="--", **style)
        elif rows:
            axes.errorbar(range(len(rows)), means, widths, fmt="o-", markersize=4, capsize=3, **style)
    if chance is not None:
        axes.errorbar([0, longest - 1], [chance] * 2, fmt=":", color="gray", label="chance")
    axes.locator_params(axis="x", integer=True)
    finish_axes(axes, metric, "inner steps", title)
    return figure


def intervals(columns: Columns, metric: ReportedMetric, title: str, chance: float | None) -> Figure:
    """Plot the single value of each label with its interval, one row per label."""
    figure = Figure((FIGURE_SIZE[0], 1.4 + 0.9 * len(columns)), layout="constrained")
    axes = figure.subplots()
    for row, (label, values) in enumerate(columns.items()):
        for value in values:
            mean, width = value["mean"], value["ci95"]
            axes.errorbar(with_gaps([mean]), [row], xerr=with_gaps([width]), fmt="o", capsize=4, color=f"C{row}")
            text = f"{textwrap.fill(label, LONGEST_LINE)}\n{metric.write(mean, width)}"
            axes.text(0.01, row - 0.2, text, transform=axes.get_yaxis_transform(), parse_math=False)
    if chance is not None:
        axes.axvline(chance, color="gray", linestyle=":", label="chance")
        axes.legend(loc="lower right")
    axes.set(xlabel=f"{metric.name} on the query sets", title=title, ylim=(len(columns) - 0.4, -0.8), yticks=[])
    scale_axis(axes, "x", metric)
    axes.grid(axis="x", alpha=0.3)
    return figure


def of_kind(rows: LoggedRows, kind: str) -> LoggedRows:
    """The rows of training ("train") or of validation ("val")."""
    return [row for row in rows if row.get("kind") == kind]


def legend_label(name: str) -> str:
    """The name for a legend; matplotlib hides names that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def with_gaps(values: Iterable[float | None]) -> np.ndarray:
    """The values with NaN for None; matplotlib leaves a gap there."""
    return np.array([math.nan if value is None else value for value in values])


def finish_axes(axes: Axes, metric: ReportedMetric, x_label: str, title: str) -> None:
    """Set labels, scale, grid and legend."""
    axes.set(xlabel=x_label, ylabel=f"{metric.name} on the query sets", title=title)
    scale_axis(axes, "y", metric)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")


def scale_axis(axes: Axes, name: Literal["x", "y"], metric: ReportedMetric) -> None:
    """Scale a fraction from 0 to 1, and other metrics from 0 unless they have negative values."""
    if metric.is_fraction:
        axes.set(**{f"{name}lim": (0, 1.02)})
        getattr(axes, f"{name}axis").set_major_formatter("{x:.0%}")
    else:
        has_negative = getattr(axes.dataLim, f"{name}min") < 0
        axes.set(**{f"{name}lim": (None if has_negative else 0, None)})


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """A running mean over ``window`` values, of the finite ones; the others stay gaps."""
    if not len(values):
        return values
    known = np.isfinite(values)
    sums, counts = (np.convolve(x, np.ones(window), "same") for x in (np.where(known, values, 0), known))
    return np.where(known, sums / np.maximum(counts, 1), math.nan)
