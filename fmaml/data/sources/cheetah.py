"""A planar cheetah that runs forward or backward, after the half-cheetah of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor

from ...losses import Apply
from ...rl.cheetah import CHEETAH, RODS, STEP, outline
from ...rl.environments import with_goal
from ...rl.rollouts import Environment, noise_and_goal, rollouts
from ...rng import uniform
from ...setting_types import CostsMemory, KeepsTestTasks, Size, Unit
from ...types import Params, Task
from ..policy_source import Acting, policy_source
from ..source import Source

if TYPE_CHECKING:
    from ..pictures import Axes, Figure

_AIR, _GROUND = 1.45, 0.15  # metres drawn above and below the ground
_APART = 1.5  # metres from body to body in a film strip
_SECOND = max(1, round(1 / STEP))  # in steps


def cheetah(
    *,
    seed: int,
    device: torch.device,
    episodes: Annotated[Size, CostsMemory] = 20,
    horizon: Annotated[Size, CostsMemory] = 100,
    discount: Annotated[Unit, KeepsTestTasks] = 0.99,
    gae_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
    dice_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
    told: Annotated[bool, KeepsTestTasks] = False,
) -> Source:
    """A cheetah runs forward or backward, with equal probability. The reward is the speed in that direction.

    Returns a source of tasks. Their examples are the steps of ``episodes`` episodes, each of ``horizon`` steps of
    0.05 s. Support x float32 [tasks, episodes * horizon, 4] is the noise of the actions. y float32 [tasks, episodes *
    horizon, 1] is the direction, 1 or -1, which the policy does not see. The query set has the same shapes.

    The policy sees the state of the body, 13 numbers, and returns the torques on its four joints. An episode begins at
    rest in the stance, and never ends early. The body, `fmaml.rl.cheetah`, is symmetric, and each of its two legs has
    two links; the half-cheetah of MuJoCo also has feet.

    The loss is that of policy gradients, with ``discount``, ``gae_lambda`` and ``dice_lambda`` as in `navigation`. With
    ``told``, the policy also sees the direction, the last of 14 numbers, and need not adapt: an oracle policy.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """
    about = {
        "data": "cheetah",
        "task": f"cheetah, {episodes} episodes",
        "protocol": "a planar cheetah forward or backward, "
        f"{episodes} support and {episodes} query episodes of {horizon} steps{', the direction told' * told}",
    }
    environment = with_goal(CHEETAH) if told else CHEETAH
    acting = Acting(episodes, horizon, discount, gae_lambda, dice_lambda)
    show = partial(_save_runs, environment, horizon)
    return policy_source(
        environment, _direction, acting, seed, device, states=13 + told, actions=4, about=about, show=show
    )


def _direction(keys: Tensor) -> Tensor:
    """Draw directions, 1 or -1, float32 [tasks, 1]."""
    return torch.where(uniform(keys) < 0.5, -1.0, 1.0)[:, None]


def _save_runs(
    environment: Environment, horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply
) -> None:
    """Write cheetah.png: an episode in each direction, before adaptation and after inner steps."""
    from ...files.figures import save_figure

    def motion(params: Params, task: Task) -> Tensor:
        """The positions of the rods' ends at each step: [horizon, 6, 2]."""
        noise, direction = noise_and_goal(task.query, horizon)
        seen = rollouts(apply, params, environment, noise[:1], direction[:1])
        far = STEP * direction[0, 0] * (seen.rewards[0].cumsum(0) - seen.rewards[0])
        return outline(seen.states[0]) + torch.stack([far, torch.zeros_like(far)], -1)[:, None]

    first = {float(task.query.y[0, 0]): number for number, task in reversed(list(enumerate(tasks)))}
    names = {"backward": first.get(-1.0), "forward": first.get(1.0)}
    motions = {name: [motion(phi, tasks[i]) for phi in phis[i]] for name, i in names.items() if i is not None}
    save_figure(_runs_figure(motions), folder / "cheetah.png")


def _runs_figure(runs: dict[str, list[Tensor]]) -> "Figure":
    """Draw the running body once a second, and below, its strides as a film strip.

    ``runs`` holds the motions [steps, points, 2] by direction, after 0, 1, .. inner steps. Steps 0, 1 and the last are
    drawn.
    """
    from ..pictures import after, plt

    last = len(next(iter(runs.values()))) - 1
    stages = sorted({0, min(1, last), last})
    left, right = _reach([motion[stage] for motion in runs.values() for stage in stages])
    widths = [right - left] * len(stages) + [_APART * (_SECOND // 2 + 1)] * len(runs)
    heights = [10.8 * (_AIR + _GROUND) / width for width in widths]
    size = (11, sum(heights) + 0.4 * len(heights) + 0.6)
    figure, axes = plt.subplots(len(widths), 1, figsize=size, height_ratios=heights, layout="constrained")
    colors = dict(zip(runs, ("tab:orange", "tab:blue"), strict=False))
    for axis, stage in zip(axes, stages, strict=False):
        _draw_ground(axis, left, right)
        far = [_draw_run(axis, name, motion[stage].cpu(), colors[name]) for name, motion in runs.items()]
        axis.set_title(f"{after(stage)}: {', '.join(far)}", fontsize=9, loc="left")
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(runs), "borderaxespad": 0}
    for line in axes[0].legend(**above, fontsize=9, frameon=False).get_lines():
        line.set(linewidth=4.5, alpha=0.85)
    axes[len(stages) - 1].set_xlabel("metres", fontsize=9)
    for axis, (name, motion) in zip(axes[len(stages) :], runs.items(), strict=True):
        _draw_film(axis, motion[last].cpu(), colors[name])
        axis.set_title(f"{name} {after(last)}, a picture every {2 * STEP:.2g} s", fontsize=9, loc="left")
    length = f"{len(next(iter(runs.values()))[0]) * STEP:.2g} s"
    figure.suptitle(f"Unseen tasks: an episode of {length} in each direction, the body once a second", fontsize=11)
    return figure


def _reach(motions: list[Tensor]) -> tuple[float, float]:
    """The horizontal limits, in metres, that contain all motions [steps, points, 2]."""
    left = min(float(points[..., 0].min()) for points in motions)
    right = max(float(points[..., 0].max()) for points in motions)
    return min(-3, left - 0.4), max(3, right + 0.4)


def _draw_run(axis: "Axes", name: str, points: Tensor, color: str) -> str:
    """Draw the path of a motion [steps, points, 2] and the body once a second. Returns the distance, as text."""
    axis.plot(*points[:, :2].mean(1).T, color=color, linewidth=0.8, alpha=0.6, label=name)
    for body in [*points[::_SECOND], points[-1]]:
        _draw_body(axis, body, color)
    return f"{name} {float(points[-1, :2, 0].mean()):+.1f} m"


def _draw_film(axis: "Axes", points: Tensor, color: str) -> None:
    """Draw every second step of one second from the middle of a motion [steps, points, 2], side by side."""
    _draw_ground(axis, -0.5 * _APART, _APART * (_SECOND // 2 + 0.5))
    axis.set_xticks([])
    for number, body in enumerate(points[len(points) // 2 :][: _SECOND + 1 : 2]):
        _draw_body(axis, body + body.new_tensor([_APART * number - float(body[:2, 0].mean()), 0]), color)


def _draw_body(axis: "Axes", points: Tensor, color: str) -> None:
    for number, ends in enumerate(RODS):
        x, z = points[list(ends)].T
        axis.plot(x, z, color=color, linewidth=2 if number else 4.5, alpha=0.85, solid_capstyle="round")


def _draw_ground(axis: "Axes", left: float, right: float) -> None:
    axis.axhspan(-_GROUND, 0, color="0.92", linewidth=0)
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set(xlim=(left, right), ylim=(-_GROUND, _AIR), yticks=[], aspect="equal")
    axis.tick_params(labelsize=8)
    axis.spines[:].set_visible(False)
