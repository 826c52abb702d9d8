"""Figures of test tasks, one function for each kind of task."""

from torch import Tensor

from ..files.figures import Axes, Figure, plt
from ..files.figures import save_figure as save_figure
from ..losses import Apply
from ..types import Params, Task

_RIGHT_COLOR, _WRONG_COLOR = "#1a7f37", "#cf222e"


def image_task_figure(task: Task, predicted: Tensor) -> Figure:
    """A figure of one task: a row per class with its support images, a gap, and its queries with their predictions.

    ``task`` is a single task of images [n, channels, height, width] in [0, 1], ``predicted`` int64 [queries].
    """
    labels = task.support.y.unique()
    support = [task.support.x[task.support.y == label] for label in labels]
    query = [task.query.x[task.query.y == label] for label in labels]
    guesses = [predicted[task.query.y == label].tolist() for label in labels]
    shots, queries = max(map(len, support)), max(map(len, query))
    ways, columns = len(labels), shots + 1 + queries
    size = (0.85 * columns + 0.6, 1.05 * ways + 0.7)
    figure, axes = plt.subplots(ways, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for way in range(ways):
        axes[way, 0].text(-0.35, 0.5, str(way), transform=axes[way, 0].transAxes, ha="right", va="center", fontsize=12)
        for axis, image in zip(axes[way], support[way], strict=False):
            _draw_image(axis, image)
        for axis, image, guess in zip(axes[way, shots + 1 :], query[way], guesses[way], strict=False):
            _draw_image(axis, image)
            axis.set_title(f"→ {guess}", fontsize=9, pad=2, color=_RIGHT_COLOR if guess == way else _WRONG_COLOR)
    right = sum(guess == way for way, row in enumerate(guesses) for guess in row)
    figure.suptitle(
        f"One unseen task: the support set (left), the queries with the predicted class (right); "
        f"{right} of {sum(map(len, guesses))} right",
        fontsize=9,
    )
    return figure


def _draw_image(axis: Axes, image: Tensor) -> None:
    """Draw an image [channels, height, width] in [0, 1]; one channel is drawn as black on white."""
    pixels = image.cpu().numpy()
    if len(pixels) == 1:
        axis.imshow(pixels[0], cmap="gray_r", vmin=0, vmax=1)
    else:
        axis.imshow(pixels.transpose(1, 2, 0))


def signal_task_figure(task: Task, predicted: Tensor) -> Figure:
    """A figure of one task of signals: a row per class, its support signals left, its queries right.

    ``task`` is a single task of signals [n, channels, length], of which the first channel is drawn; ``predicted`` int64
    [queries]. Queries are green where the prediction is right, else red.
    """
    labels = task.support.y.unique()
    size = (9, 1.1 * len(labels) + 0.8)
    figure, axes = plt.subplots(len(labels), 2, figsize=size, squeeze=False, layout="constrained", sharex=True)
    for label, (seen, asked) in zip(labels, axes, strict=True):
        for signal in task.support.x[task.support.y == label]:
            seen.plot(signal[0].cpu(), color="black", linewidth=0.8)
        chosen = task.query.y == label
        for signal, guess in zip(task.query.x[chosen], predicted[chosen], strict=True):
            color = _RIGHT_COLOR if guess == label else _WRONG_COLOR
            asked.plot(signal[0].cpu(), color=color, linewidth=0.8, alpha=0.7)
        seen.set_ylabel(str(int(label)))
    right = int((predicted == task.query.y).sum())
    figure.suptitle(
        f"One unseen task: the support set (left), the queries (right), green where named rightly; "
        f"{right} of {len(predicted)} right",
        fontsize=9,
    )
    return figure


def regression_figure(
    tasks: list[Task], phis: list[list[Params]], apply: Apply, x: Tensor, truths: list[Tensor]
) -> Figure:
    """A figure of the first four tasks: the true y, the support points, and the network's y over x.

    ``phis`` are the parameters of each task after 0, 1, .. inner steps, drawn for 0, 1 and the last. ``x`` is [n, 1],
    and ``truths`` holds the true y [n, 1] of each task.
    """
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained", squeeze=False)
    for axis, task, trajectory, truth in zip(axes.flat, tasks, phis, truths, strict=False):
        axis.plot(x.cpu(), truth.cpu(), color="tab:red", label="truth")
        last = len(trajectory) - 1
        for step, style in {0: ":", 1: "--", last: "-"}.items():
            label = f"network after {step} inner step{'s' * (step != 1)}"
            y = apply(trajectory[min(step, last)], x).cpu()
            axis.plot(x.cpu(), y, style, color="tab:blue", alpha=0.5 if step < last else 1, label=label)
        axis.plot(
            task.support.x.cpu(), task.support.y.cpu(), "^", color="tab:purple", markersize=7, label="support set"
        )
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle("Unseen tasks: what the network makes of the support set")
    return figure


def predictions_figure(tasks: list[Task], phis: list[list[Params]], apply: Apply) -> Figure:
    """A figure of the first four tasks: the predicted against the true y of the query set, before and after adaptation.

    ``phis`` are the parameters of each task after 0, 1, .. inner steps, drawn for 0 and the last.
    """
    figure, axes = plt.subplots(2, 2, figsize=(7, 7), layout="constrained", squeeze=False)
    for axis, task, trajectory in zip(axes.flat, tasks, phis, strict=False):
        y = task.query.y.flatten().cpu()
        last = len(trajectory) - 1
        for step, marker, color in ((0, "o", "tab:gray"), (last, "o", "tab:blue")):
            predicted = apply(trajectory[step], task.query.x).flatten().cpu()
            label = f"network after {step} inner step{'s' * (step != 1)}"
            axis.plot(y, predicted, marker, color=color, markersize=5, label=label)
        axis.axline((float(y.mean()), float(y.mean())), slope=1, color="tab:red", linewidth=1, label="right")
        axis.set_xlabel("true, standardised")
        axis.set_ylabel("predicted")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle("Unseen tasks: the query set")
    return figure
