"""Pictures that appear step by step."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

import fmaml
from fmaml.data.pictures import after, plt, save_figure
from fmaml.losses import Apply

from .pixels import SIDE, places, psnr

MOST = 4  # pictures


def save_appearing(folder: Path, tasks: list[fmaml.Task], phis: list[list[fmaml.Params]], apply: Apply) -> None:
    """Write appearing.png: a row for each task, with the field after 0, 1, .. inner steps, and the picture."""
    x = places(tasks[0].query.x.device)
    rows = [[apply(phi, x) for phi in trajectory] for trajectory in phis[:MOST]]
    titles = ["theta", *(after(step) for step in range(1, len(rows[0])))]
    save_rows(rows, titles, [whole(task) for task in tasks[:MOST]], folder / "appearing.png")


def whole(task: fmaml.Task) -> Tensor:
    """The colours [1024, 3] of a task's picture, from the pixels of both sets."""
    found = task.query.y.new_zeros(SIDE * SIDE, 3)
    for batch in task:
        down, right = ((batch.x + 1) * SIDE / 2).long().unbind(1)
        found[SIDE * down + right] = batch.y
    return found


def save_rows(rows: Sequence[Sequence[Tensor]], titles: Sequence[str], truths: Sequence[Tensor], file: Path) -> None:
    """Draw colours [1024, 3], a row for each truth with the truth last, and the PSNR above each of the others."""
    size = (1.25 * len(titles) + 1.25, 1.42 * len(rows) + 0.3)
    figure, axes = plt.subplots(len(rows), len(titles) + 1, figsize=size, squeeze=False, layout="constrained")
    for line, row, truth in zip(axes, rows, truths, strict=True):
        for axis, colours in zip(line, [*row, truth], strict=True):
            axis.imshow((colours.clamp(-1, 1) / 2 + 0.5).unflatten(0, (SIDE, SIDE)).cpu().numpy())
            axis.set_title("" if colours is truth else f"{float(psnr(colours, truth)):.1f} dB", fontsize=8, pad=2)
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[-1], [*titles, "picture"], strict=True):
        axis.set_xlabel(title, fontsize=8)
    save_figure(figure, file)
