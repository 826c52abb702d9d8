"""Frames of the solution as time goes on, before and after adaptation."""

from pathlib import Path

import torch

from fmaml import Params, Task
from fmaml.data.pictures import after, plt, save_panels
from fmaml.losses import Apply

from .exact import exact

TIMES = (0.0, 0.15, 0.3, 0.4, 0.5)


def save_solutions(folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write solutions.png: a row of frames for the lowest and for the highest viscosity of the tasks."""
    ordered = sorted(zip(tasks, phis, strict=True), key=lambda pair: float(pair[0].query.x[0, 2]))
    figure, axes = plt.subplots(2, len(TIMES), figsize=(11, 4.6), sharex=True, sharey=True, layout="constrained")
    x = torch.linspace(-1, 1, 401)[:, None]
    for row, (task, trajectory) in zip(axes, (ordered[0], ordered[-1]), strict=True):
        viscosity, last = task.query.x[0, 2].cpu(), len(trajectory) - 1
        row[0].set_ylabel(f"viscosity {float(viscosity):.4f}")
        for axis, time in zip(row, TIMES, strict=True):
            points = torch.cat([x, torch.full_like(x, time), viscosity.expand_as(x)], 1)
            axis.plot(x, exact(points), color="tab:red", linewidth=2.5, alpha=0.6, label="exact")
            for step, color in {0: "tab:gray", last: "tab:blue"}.items():
                u = apply(trajectory[step], points.to(task.query.x)).cpu()
                axis.plot(x, u, "--", color=color, linewidth=1.2, label=f"network {after(step)}")
            axis.set_title(f"t = {time:g}", fontsize=9)
    save_panels(figure, "Unseen viscosities: u over x, as time goes on", folder / "solutions.png")
