"""Figures of test tasks, one function a kind of task."""

from pathlib import Path

from torch import Tensor

from ..files.figures import Axes, Figure, plt
from ..files.figures import save_figure as save_figure
from ..files.plain_text import counted
from ..losses import IGNORED, Apply
from ..types import Params, Task
from .ragged import without_padding

_COLORS = {True: "#1a7f37", False: "#cf222e"}  # is the prediction right? -> color


def save_task(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write task.png: the first task of images or signals, with the predictions after the last inner step."""
    (support, query), phi = tasks[0], phis[0][-1]
    ways = int(query.y.max()) + 1
    predicted = apply(phi, query.x)[query.y != IGNORED, :ways].argmax(-1)
    task = Task(without_padding(support), without_padding(query))
    right = int((predicted == task.query.y).sum())
    if query.x.ndim == 4:
        figure, how = image_task_figure(task, predicted), "the queries with the predicted class (right)"
    else:
        figure, how = signal_task_figure(task, predicted), "the queries (right), green if predicted rightly"
    title = f"One unseen task: the support set (left), {how}; {right} of {len(predicted)} right"
    figure.suptitle(title, fontsize=9)
    save_figure(figure, folder / "task.png")


def image_task_figure(task: Task, predicted: Tensor) -> Figure:
    """Draw one task, a row per class: its support images, a gap, and its queries with their predictions.

    ``task`` is a single task of images [n, channels, height, width] in [0, 1], ``predicted`` int64 [queries].
    """
    labels = task.support.y.unique()
    support = [task.support.x[task.support.y == label] for label in labels]
    query = [task.query.x[task.query.y == label] for label in labels]
    guesses = [predicted[task.query.y == label].tolist() for label in labels]
    shots, columns = max(map(len, support)), max(map(len, support)) + 1 + max(map(len, query))
    size = (0.85 * columns + 0.6, 1.05 * len(labels) + 0.7)
    figure, axes = plt.subplots(len(labels), columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for way, row in enumerate(axes):
        row[0].text(-0.35, 0.5, str(way), transform=row[0].transAxes, ha="right", va="center", fontsize=12)
        for axis, image in zip(row, support[way], strict=False):
            _draw_image(axis, image)
        for axis, image, guess in zip(row[shots + 1 :], query[way], guesses[way], strict=False):
            _draw_image(axis, image)
            axis.set_title(f"→ {guess}", fontsize=9, pad=2, color=_COLORS[guess == way])
    return figure


def _draw_image(axis: Axes, image: Tensor) -> None:
    """Draw an image [channels, height, width] in [0, 1]; one channel is drawn as black on white."""
    pixels = image.cpu().numpy().transpose(1, 2, 0)
    axis.imshow(pixels, cmap="gray_r", vmin=0, vmax=1)


def signal_task_figure(task: Task, predicted: Tensor) -> Figure:
    """Draw one task of signals, a row per class: its support signals left, its queries right.

    ``task`` is a single task of signals [n, channels, length]; the first channel is drawn. ``predicted`` is int64
    [queries]. Queries are green if the prediction is right, else red.
    """
    labels = task.support.y.unique()
    size = (9, 1.1 * len(labels) + 0.8)
    figure, axes = plt.subplots(len(labels), 2, figsize=size, squeeze=False, layout="constrained", sharex=True)
    for label, (seen, asked) in zip(labels, axes, strict=True):
        for signal in task.support.x[task.support.y == label]:
            seen.plot(signal[0].cpu(), color="black", linewidth=0.8)
        chosen = task.query.y == label
        for signal, guess in zip(task.query.x[chosen], predicted[chosen], strict=True):
            asked.plot(signal[0].cpu(), color=_COLORS[bool(guess == label)], linewidth=0.8, alpha=0.7)
        seen.set_ylabel(str(int(label)))
    return figure


def save_functions(
    file: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply, x: Tensor, truths: list[Tensor]
) -> None:
    """Draw the first four tasks: the true y, the support points, and the network's y over x.

    ``phis`` are the parameters of each task after 0, 1, .. inner steps; steps 0, 1 and the last are drawn. ``x`` is
    [n, 1], and ``truths`` holds the true y [n, 1] of each task.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained", squeeze=False)
    for axis, task, trajectory, truth in zip(axes.flat, tasks, phis, truths, strict=False):
        axis.plot(x.cpu(), truth.cpu(), color="tab:red", label="truth")
        last = len(trajectory) - 1
        for step, style in {0: ":", 1: "--", last: "-"}.items():
            y = apply(trajectory[min(step, last)], x).cpu()
            alpha = 0.5 if step < last else 1
            axis.plot(x.cpu(), y, style, color="tab:blue", alpha=alpha, label=f"network {after(step)}")
        seen_x, seen_y = (part.cpu() for part in task.support)
        axis.plot(seen_x, seen_y, "^", color="tab:purple", markersize=7, label="support set")
    save_panels(figure, "Unseen tasks: the network before and after adaptation", file)


def save_predictions(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write predictions.png: predicted against true y of the query set, for four tasks.

    ``phis`` are the parameters of each task after 0, 1, .. inner steps; step 0 and the last are drawn.
    """
    figure, axes = plt.subplots(2, 2, figsize=(7, 7), layout="constrained", squeeze=False)
    for axis, task, trajectory in zip(axes.flat, tasks, phis, strict=False):
        y, mean, last = task.query.y.flatten().cpu(), float(task.query.y.mean()), len(trajectory) - 1
        for step, color in {0: "tab:gray", last: "tab:blue"}.items():
            predicted = apply(trajectory[step], task.query.x).flatten().cpu()
            axis.plot(y, predicted, "o", color=color, markersize=5, label=f"network {after(step)}")
        axis.axline((mean, mean), slope=1, color="tab:red", linewidth=1, label="right")
        axis.set_xlabel("true, standardised")
        axis.set_ylabel("predicted")
    save_panels(figure, "Unseen tasks: the query set", folder / "predictions.png")


def after(step: int) -> str:
    """Such as "after 1 inner step"."""
    return f"after {counted(step, 'inner step')}"


def save_panels(figure: Figure, title: str, file: Path) -> None:
    """Save a figure: each panel gets a grid, and the figure the legend of the first panel."""
    for axis in figure.axes:
        axis.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(title)
    save_figure(figure, file)
