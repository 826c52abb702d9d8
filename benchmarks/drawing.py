"""The picture of `algorithms.py`: accuracy against inner steps, time and memory, one colour per algorithm."""

from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

Curves = dict[str, list[tuple[float, float | None]]]  # label -> mean and half its interval after 0, 1, .. inner steps
MARKS = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


def picture(curves: Curves, costs: dict[str, Any]) -> Figure:
    """Draw the picture, the best algorithm on top; the bars' names are the legend of the curves."""
    names = sorted(curves, key=lambda name: curves[name][-1][0])
    colors = {name: mpl.colormaps["tab20"](i % 20) for i, name in enumerate(names)}
    figure, axes = plt.subplots(
        1, 3, figsize=(12, 0.24 * len(names) + 2.4), width_ratios=[2, 1, 1], layout="constrained"
    )
    accuracy(axes[0], curves, colors)
    for axis, key, title in ((axes[1], "time", "time of a meta-step"), (axes[2], "memory", "memory of a meta-step")):
        sizes = [costs[name][key] if name in costs else 0 for name in names]
        bars = axis.barh(names, sizes, color=[colors[name] for name in names])
        labels = axis.bar_label(bars, [f"{size:.2f}" if size else "" for size in sizes], fontsize=7, padding=3)
        for text in labels:  # the line at 1 passes behind them
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axis.set(title=title, xlabel="relative to MAML")
        axis.axvline(1, color="gray", linestyle=":")
        axis.margins(x=0.15)
        axis.grid(alpha=0.3, axis="x")
    return figure


def accuracy(axis: Any, curves: Curves, colors: dict[str, Any]) -> None:
    for name, curve in curves.items():
        means, widths = zip(*curve, strict=True)
        kept = [min(max(mean, 0.05), 0.999) for mean in means]  # the scale has neither 0 nor 1
        axis.errorbar(
            range(len(curve)), kept, widths, fmt="o-", markersize=3, capsize=2, color=colors[name], label=name
        )
    axis.set(xlabel="inner steps", ylabel="accuracy on the query sets", title="Unseen tasks, 95 % intervals")
    axis.set_yscale("logit")
    axis.yaxis.set_major_locator(FixedLocator(MARKS))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
