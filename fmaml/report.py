"""What a run ends with: the table, results.json and the pictures."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only: no display is needed or looked for

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from .train import Interval
from .types import Task

SETTINGS = {
    "transductive": "all queries together",
    "inductive": "each query alone with the support set",
}
RIGHT, WRONG = "#1a7f37", "#cf222e"


def table(results: dict[str, list[Interval]], about: dict[str, Any], title: str) -> Table:
    """Accuracy by inner step, one column a setting, with everything the numbers depend on in the caption."""
    view = Table(title=title, caption=protocol(about), caption_justify="left", title_justify="left")
    view.add_column("inner steps", justify="right")
    for setting in results:
        view.add_column(f"{setting}\n({SETTINGS[setting]})", justify="right")
    for step, row in enumerate(zip(*results.values(), strict=True)):
        view.add_row(str(step), *(f"{score.mean:.2%} ± {score.ci95:.2%}" for score in row))
    return view


def protocol(about: dict[str, Any]) -> str:
    """One line that says how the numbers were got."""
    return (
        f"{about['ways']}-way {about['shots']}-shot, {about['queries']} queries a class, {about['tasks']} tasks of "
        f"{about['classes']['test']} unseen classes ({about['data']}), seed {about['seed']}; trained with "
        f"{about['steps']} inner step{'s' * (about['steps'] != 1)}; ± is a 95 % interval over tasks"
    )


def write_results(path: Path, results: dict[str, list[Interval]], about: dict[str, Any]) -> None:
    rows = {setting: [score._asdict() for score in column] for setting, column in results.items()}
    path.write_text(json.dumps({**about, "results": rows}, indent=2) + "\n", encoding="utf-8")


def learning_curve(metrics: Path) -> Figure:
    """Training and validation accuracy against meta-steps, from metrics.jsonl."""
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val"]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    steps = [row["step"] for row in train]
    for key, label, color in (
        ("accuracy_after", "train, adapted", "tab:blue"),
        ("accuracy_before", "train, not adapted", "tab:gray"),
    ):
        values = np.array([row[key] for row in train])
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(values), color=color, label=label)
    axes.errorbar(
        [row["step"] for row in val],
        [row["accuracy"] for row in val],
        [row["ci95"] for row in val],
        fmt="o-",
        markersize=3,
        capsize=2,
        color="tab:orange",
        label="validation, adapted (95 % interval)",
    )
    axes.set(xlabel="meta-steps", ylabel="accuracy on the query sets", ylim=(0, 1.02), title="Learning curve")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def accuracy_by_step(results: dict[str, list[Interval]], about: dict[str, Any]) -> Figure:
    """Accuracy on unseen classes after 0, 1, 2, ... inner steps."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for setting, column in results.items():
        means, widths = [s.mean for s in column], [s.ci95 for s in column]
        axes.errorbar(range(len(column)), means, widths, fmt="o-", capsize=3, label=f"{setting}: {SETTINGS[setting]}")
    axes.axhline(1 / about["ways"], color="gray", linestyle=":", label="chance")
    axes.set(
        xlabel="inner steps",
        ylabel="accuracy on the query sets",
        ylim=(0, 1.02),
        xticks=range(len(next(iter(results.values())))),
        title=f"{about['ways']}-way {about['shots']}-shot on unseen classes, {about['tasks']} tasks",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def task_picture(task: Task, predicted: Tensor, ways: int) -> Figure:
    """One task: a row a class, its support images, a gap, its queries with what was predicted for each.

    ``task`` is a single task, ``predicted`` int64 [ways * queries].
    """
    shots, queries = len(task.support.y) // ways, len(task.query.y) // ways
    columns = shots + 1 + queries
    figure, axes = plt.subplots(
        ways, columns, figsize=(0.85 * columns + 0.6, 1.05 * ways + 0.7), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for way in range(ways):
        axes[way, 0].text(-0.35, 0.5, str(way), transform=axes[way, 0].transAxes, ha="right", va="center", fontsize=12)
        for shot in range(shots):
            show(axes[way, shot], task.support.x[way * shots + shot])
        for query in range(queries):
            index = way * queries + query
            guess = int(predicted[index])
            axis = axes[way, shots + 1 + query]
            show(axis, task.query.x[index])
            axis.set_title(f"→ {guess}", fontsize=9, pad=2, color=RIGHT if guess == way else WRONG)
    right = int((predicted == task.query.y.cpu()).sum())
    figure.suptitle(
        f"One unseen task: {shots} support image{'s' * (shots != 1)} a class (left), "
        f"queries with the predicted class (right), {right}/{len(predicted)} right",
        fontsize=9,
    )
    return figure


def show(axis: Any, image: Tensor) -> None:
    """An image [channels, height, width] in [0, 1]; one channel is ink on paper."""
    pixels = image.cpu().numpy()
    if len(pixels) == 1:
        axis.imshow(pixels[0], cmap="gray_r", vmin=0, vmax=1)
    else:
        axis.imshow(pixels.transpose(1, 2, 0))


def smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over a twentieth of the values."""
    width = max(1, len(values) // 20)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def save_figure(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    plt.close(figure)
