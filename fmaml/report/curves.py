"""Plots of a run: the learning curve, and the metric by inner step."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.pictures import plt
from ..data.source import Metric

Point = tuple[float, float | None]  # a mean, and half the width of its 95 % interval
Curves = dict[str, list[Point]]  # label -> the points after 0, 1, .. inner steps
TRAIN_CURVES = (  # key of a row in metrics.jsonl, label, color
    ("after", "training tasks, adapted", "tab:blue"),
    ("before", "training tasks, not adapted", "tab:gray"),
)


def learning_curve(metrics: Path, metric: Metric) -> Figure:
    """Training and validation scores against meta-steps; ``metrics`` is the path of metrics.jsonl."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    steps = [row["step"] for row in train]
    once = [row["before"] for row in train] == [row["after"] for row in train]  # as of what takes no inner steps
    for key, label, color in TRAIN_CURVES[: 1 if once else None]:
        values = with_gaps(row[key] for row in train)
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(values), color=color, label=label)
    axes.errorbar(
        [row["step"] for row in val],
        with_gaps(row["score"] for row in val),
        with_gaps(row["ci95"] for row in val),
        fmt="o-",
        markersize=3,
        capsize=2,
        color="tab:orange",
        label="validation, adapted (95 % interval)",
    )
    axes.set(xlabel="meta-steps", ylabel=f"{metric.name} on the query sets", title="Learning curve")
    style_axes(axes, metric)
    return figure


def by_inner_step(curves: Curves, metric: Metric, title: str, chance: float | None) -> Figure:
    """The metric on unseen tasks against inner steps, one curve a label; ``chance`` is the metric of guessing.

    Where nothing takes inner steps, the intervals stand below each other instead.
    """
    if all(len(column) == 1 for column in curves.values()):
        return intervals(curves, metric, title, chance)
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for label, column in curves.items():
        means, widths = zip(*column, strict=True)
        axes.errorbar(range(len(column)), means, with_gaps(widths), fmt="o-", capsize=3, label=label)
    if chance is not None:
        axes.axhline(chance, color="gray", linestyle=":", label="chance")
    axes.set(xlabel="inner steps", ylabel=f"{metric.name} on the query sets", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style_axes(axes, metric)
    return figure


def intervals(curves: Curves, metric: Metric, title: str, chance: float | None) -> Figure:
    """The one value of each label with its interval, a row each."""
    figure, axes = plt.subplots(figsize=(7, 1.4 + 0.7 * len(curves)), layout="constrained")
    for row, (label, [(mean, width)]) in enumerate(curves.items()):
        axes.errorbar(with_gaps([mean]), [row], xerr=with_gaps([width]), fmt="o", capsize=4)
        told = f"{label}: {metric.write(mean, width)}"
        axes.text(0.01, row - 0.2, told)
    if chance is not None:
        axes.axvline(chance, color="gray", linestyle=":", label="chance")
        axes.legend(loc="lower right")
    axes.set(xlabel=f"{metric.name} on the query sets", title=title, ylim=(len(curves) - 0.4, -0.8), yticks=[])
    axes.set_xlim(0, 1.02 if metric.style.endswith("%") else None)
    axes.grid(axis="x", alpha=0.3)
    return figure


def with_gaps(values: Iterable[float | None]) -> np.ndarray:
    """The values with NaN for None, which matplotlib leaves out."""
    return np.array([math.nan if value is None else value for value in values])


def style_axes(axes: Axes, metric: Metric) -> None:
    """Set scale, grid and legend; a fraction is shown from 0 to 1, an error from 0."""
    axes.set_ylim(0, 1.02 if metric.style.endswith("%") else None)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")


def smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a twentieth of the values."""
    if not len(values):
        return values
    width = max(1, len(values) // 20)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
