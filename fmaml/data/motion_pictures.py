"""Pictures of what policies do: paths in the plane, and a body that runs."""

from collections.abc import Sequence

from torch import Tensor

from ..files.figures import Axes, Figure, plt

_AIR, _GROUND = 1.45, 0.15  # metres that are drawn above and below the ground
_APART = 1.5  # metres from body to body of a film


def paths_figure(walked: list[list[Tensor]], goals: list[Tensor]) -> Figure:
    """A figure of the first four tasks: paths in the plane before adaptation, after one inner step and after the last.

    ``walked`` are for each task the paths [n, steps, 2] after 0, 1, .. inner steps, of which five are drawn, NaN after
    their end; ``goals`` is where each task's should go, [2].
    """
    figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained", squeeze=False)
    for axis, by_step, goal in zip(axes.flat, walked, goals, strict=False):
        last = len(by_step) - 1
        for step, color in {0: "tab:gray", 1: "tab:orange", last: "tab:blue"}.items():
            label = f"after {step} inner step{'s' * (step != 1)}"
            for number, path in enumerate(by_step[min(step, last)][:5].cpu()):
                axis.plot(
                    path[:, 0], path[:, 1], color=color, alpha=0.6, linewidth=1, label=label if not number else None
                )
        axis.plot(*goal.cpu(), "*", color="tab:red", markersize=14, label="goal")
        axis.plot(0, 0, "o", color="black", markersize=5, label="start")
        axis.set_aspect("equal")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle("Unseen goals: five paths of the policy, as it adapts")
    return figure


def runs_figure(runs: dict[str, list[Tensor]], rods: Sequence[tuple[int, int]], seconds: float) -> Figure:
    """A figure of a body that runs in the plane: where it is once a second, and below its strides as a film.

    ``runs`` are for each of two directions, by name, the motion [steps, points, 2] after 0, 1, .. inner steps, drawn
    for 0, 1 and the last. The ``rods`` go from point to point, the first of them the trunk; a step takes ``seconds``.
    """
    last, second = len(next(iter(runs.values()))) - 1, max(1, round(1 / seconds))
    stages = sorted({0, min(1, last), last})
    every = [motion[stage] for motion in runs.values() for stage in stages]
    left = min(-3, *(float(points[..., 0].min()) - 0.4 for points in every))
    right = max(3, *(float(points[..., 0].max()) + 0.4 for points in every))
    widths = [right - left] * len(stages) + [_APART * (second // 2 + 1)] * len(runs)
    heights = [10.8 * (_AIR + _GROUND) / width for width in widths]
    size = (11, sum(heights) + 0.4 * len(heights) + 0.6)
    figure, axes = plt.subplots(len(widths), 1, figsize=size, height_ratios=heights, layout="constrained")
    colors = dict(zip(runs, ("tab:orange", "tab:blue"), strict=False))
    for axis, stage in zip(axes, stages, strict=False):
        _draw_ground(axis, left, right)
        for name, motion in runs.items():
            points = motion[stage].cpu()
            axis.plot(*points[:, :2].mean(1).T, color=colors[name], linewidth=0.8, alpha=0.6, label=name)
            for body in [*points[::second], points[-1]]:
                _draw_body(axis, body, rods, colors[name])
        far = ", ".join(f"{name} {float(motion[stage][-1, :2, 0].mean()):+.1f} m" for name, motion in runs.items())
        axis.set_title(f"after {stage} inner step{'s' * (stage != 1)}: {far}", fontsize=9, loc="left")
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(runs), "borderaxespad": 0}
    for line in axes[0].legend(**above, fontsize=9, frameon=False).get_lines():
        line.set(linewidth=4.5, alpha=0.85)
    axes[len(stages) - 1].set_xlabel("metres", fontsize=9)
    for axis, (name, motion) in zip(axes[len(stages) :], runs.items(), strict=True):
        _draw_film(axis, motion[last].cpu(), rods, second, colors[name])
        after = f"after {last} inner step{'s' * (last != 1)}, a picture every {2 * seconds:.2g} s"
        axis.set_title(f"{name} {after}", fontsize=9, loc="left")
    length = f"{len(every[0]) * seconds:.2g} s"
    figure.suptitle(f"Unseen tasks: an episode of {length} in each direction, the body once a second", fontsize=11)
    return figure


def _draw_film(axis: Axes, points: Tensor, rods: Sequence[tuple[int, int]], second: int, color: str) -> None:
    """Every second step of a second in the middle of the motion [steps, points, 2], side by side."""
    _draw_ground(axis, -0.5 * _APART, _APART * (second // 2 + 0.5))
    axis.set_xticks([])
    for number, body in enumerate(points[len(points) // 2 :][: second + 1 : 2]):
        _draw_body(axis, body + body.new_tensor([_APART * number - float(body[:2, 0].mean()), 0]), rods, color)


def _draw_body(axis: Axes, points: Tensor, rods: Sequence[tuple[int, int]], color: str) -> None:
    for number, ends in enumerate(rods):
        x, z = points[list(ends)].T
        axis.plot(x, z, color=color, linewidth=2 if number else 4.5, alpha=0.85, solid_capstyle="round")


def _draw_ground(axis: Axes, left: float, right: float) -> None:
    axis.axhspan(-_GROUND, 0, color="0.92", linewidth=0)
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set(xlim=(left, right), ylim=(-_GROUND, _AIR), yticks=[], aspect="equal")
    axis.tick_params(labelsize=8)
    axis.spines[:].set_visible(False)
