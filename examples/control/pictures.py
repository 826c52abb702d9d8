"""Pictures of unseen tasks for the report: walks to a goal, and the running cheetah, before and after adaptation."""

from pathlib import Path

import torch
from torch import Tensor

from fmaml import Params, Task
from fmaml.data.pictures import Axes, Figure, after, plt, save_figure, save_panels
from fmaml.losses import Apply

from .body import RODS, STEP, outline
from .rollouts import Environment, noise_and_goal, rollouts

AIR, GROUND = 1.45, 0.15  # metres drawn above and below the ground
APART = 1.5  # metres from body to body in a film strip
SECOND = max(1, round(1 / STEP))  # in steps


def save_paths(
    environment: Environment, horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply
) -> None:
    """Write paths.png: five paths a task before adaptation, after one inner step and after the last."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained", squeeze=False)
    for axis, task, trajectory in zip(axes.flat, tasks, phis, strict=False):
        last = len(trajectory) - 1
        for step, color in {0: "tab:gray", 1: "tab:orange", last: "tab:blue"}.items():
            seen = rollouts(apply, trajectory[min(step, last)], environment, *noise_and_goal(task.query, horizon))
            paths = torch.where(seen.weights[..., None] > 0, seen.states, torch.nan)[:5].cpu()  # [5, horizon, 2]
            lines = axis.plot(*paths.permute(2, 1, 0), color=color, alpha=0.6, linewidth=1)
            lines[0].set_label(after(step))
        axis.plot(*task.query.y[0].cpu(), "*", color="tab:red", markersize=14, label="goal")
        axis.plot(0, 0, "o", color="black", markersize=5, label="start")
        axis.set_aspect("equal")
    save_panels(figure, "Unseen goals: five paths of the policy, as it adapts", folder / "paths.png")


def save_runs(
    environment: Environment, horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply
) -> None:
    """Write cheetah.png: an episode in each direction, before adaptation and after inner steps."""

    def motion(params: Params, task: Task) -> Tensor:
        """The positions of the rods' ends at each step: [horizon, 6, 2]."""
        noise, direction = noise_and_goal(task.query, horizon)
        seen = rollouts(apply, params, environment, noise[:1], direction[:1])
        far = STEP * direction[0, 0] * (seen.rewards[0].cumsum(0) - seen.rewards[0])
        return outline(seen.states[0]) + torch.stack([far, torch.zeros_like(far)], -1)[:, None]

    first = {float(task.query.y[0, 0]): number for number, task in reversed(list(enumerate(tasks)))}
    names = {"backward": first.get(-1.0), "forward": first.get(1.0)}
    motions = {name: [motion(phi, tasks[i]) for phi in phis[i]] for name, i in names.items() if i is not None}
    save_figure(runs_figure(motions), folder / "cheetah.png")


def runs_figure(runs: dict[str, list[Tensor]]) -> Figure:
    """Draw the running body once a second, and below, its strides as a film strip.

    ``runs`` holds the motions [steps, points, 2] by direction, after 0, 1, .. inner steps. Steps 0, 1 and the last are
    drawn.
    """
    last = len(next(iter(runs.values()))) - 1
    stages = sorted({0, min(1, last), last})
    left, right = reach([motion[stage] for motion in runs.values() for stage in stages])
    widths = [right - left] * len(stages) + [APART * (SECOND // 2 + 1)] * len(runs)
    heights = [10.8 * (AIR + GROUND) / width for width in widths]
    size = (11, sum(heights) + 0.4 * len(heights) + 0.6)
    figure, axes = plt.subplots(len(widths), 1, figsize=size, height_ratios=heights, layout="constrained")
    colors = dict(zip(runs, ("tab:orange", "tab:blue"), strict=False))
    for axis, stage in zip(axes, stages, strict=False):
        draw_ground(axis, left, right)
        far = [draw_run(axis, name, motion[stage].cpu(), colors[name]) for name, motion in runs.items()]
        axis.set_title(f"{after(stage)}: {', '.join(far)}", fontsize=9, loc="left")
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(runs), "borderaxespad": 0}
    for line in axes[0].legend(**above, fontsize=9, frameon=False).get_lines():
        line.set(linewidth=4.5, alpha=0.85)
    axes[len(stages) - 1].set_xlabel("metres", fontsize=9)
    for axis, (name, motion) in zip(axes[len(stages) :], runs.items(), strict=True):
        draw_film(axis, motion[last].cpu(), colors[name])
        axis.set_title(f"{name} {after(last)}, a picture every {2 * STEP:.2g} s", fontsize=9, loc="left")
    length = f"{len(next(iter(runs.values()))[0]) * STEP:.2g} s"
    figure.suptitle(f"Unseen tasks: an episode of {length} in each direction, the body once a second", fontsize=11)
    return figure


def reach(motions: list[Tensor]) -> tuple[float, float]:
    """The horizontal limits, in metres, that contain all motions [steps, points, 2]."""
    left = min(float(points[..., 0].min()) for points in motions)
    right = max(float(points[..., 0].max()) for points in motions)
    return min(-3, left - 0.4), max(3, right + 0.4)


def draw_run(axis: Axes, name: str, points: Tensor, color: str) -> str:
    """Draw the path of a motion [steps, points, 2] and the body once a second. Returns the distance, as text."""
    axis.plot(*points[:, :2].mean(1).T, color=color, linewidth=0.8, alpha=0.6, label=name)
    for body in [*points[::SECOND], points[-1]]:
        draw_body(axis, body, color)
    return f"{name} {float(points[-1, :2, 0].mean()):+.1f} m"


def draw_film(axis: Axes, points: Tensor, color: str) -> None:
    """Draw every second step of one second from the middle of a motion [steps, points, 2], side by side."""
    draw_ground(axis, -0.5 * APART, APART * (SECOND // 2 + 0.5))
    axis.set_xticks([])
    for number, body in enumerate(points[len(points) // 2 :][: SECOND + 1 : 2]):
        draw_body(axis, body + body.new_tensor([APART * number - float(body[:2, 0].mean()), 0]), color)


def draw_body(axis: Axes, points: Tensor, color: str) -> None:
    for number, ends in enumerate(RODS):
        x, z = points[list(ends)].T
        axis.plot(x, z, color=color, linewidth=2 if number else 4.5, alpha=0.85, solid_capstyle="round")


def draw_ground(axis: Axes, left: float, right: float) -> None:
    axis.axhspan(-GROUND, 0, color="0.92", linewidth=0)
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set(xlim=(left, right), ylim=(-GROUND, AIR), yticks=[], aspect="equal")
    axis.tick_params(labelsize=8)
    axis.spines[:].set_visible(False)
