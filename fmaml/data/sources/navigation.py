"""Navigation in the plane, the first reinforcement learning experiment of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ...losses import Apply
from ...rl.environments import NAVIGATION, straight_walk
from ...rl.rollouts import noise_and_goal, rollouts
from ...rng import fold, uniform
from ...setting_types import CostsMemory, KeepsTestTasks, Size, Unit
from ...types import Params, Task
from ..policy_source import Acting, policy_source
from ..source import Sample, Source


def navigation(
    *,
    seed: int,
    device: torch.device,
    episodes: Annotated[Size, CostsMemory] = 20,
    horizon: Annotated[Size, CostsMemory] = 100,
    discount: Annotated[Unit, KeepsTestTasks] = 0.99,
    gae_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
    dice_lambda: Annotated[Unit, KeepsTestTasks] = 1.0,
) -> Source:
    """A point walks from the origin to a hidden goal, uniform in the square from -0.5 to 0.5.

    Returns a source of tasks. Their examples are the steps of ``episodes`` episodes of ``horizon`` steps. Support x
    float32 [tasks, episodes * horizon, 2] is the noise of the actions. y float32 of the same shape is the goal, which
    the policy does not see. The query set has the same shapes.

    Each inner step acts anew with its own parameters and the same noise. A step is at most 0.1 along each axis. The
    reward is minus the distance, as in the authors' code; the paper says its square. An episode ends within 0.01 of
    the goal.

    The loss is that of policy gradients with generalised advantages (``discount``, ``gae_lambda``) over a linear
    baseline. ``dice_lambda`` sets how far back its higher derivatives look, see `fmaml.rl.objective.policy_loss`.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """
    about = {
        "data": "navigation",
        "task": f"navigation, {episodes} episodes",
        "protocol": f"navigation in the plane, {episodes} support and {episodes} query episodes of {horizon} steps",
    }
    acting = Acting(episodes, horizon, discount, gae_lambda, dice_lambda)
    show = partial(_save_paths, horizon)
    source = policy_source(NAVIGATION, _goal, acting, seed, device, states=2, actions=2, about=about, show=show)
    return source._replace(references=partial(_oracle, source.sample, horizon))


def _goal(keys: Tensor) -> Tensor:
    """Draw goals, float32 [tasks, 2]."""
    counters = torch.arange(2, device=keys.device)
    return (uniform(fold(keys[:, None], counters)) - 0.5).float()


def _oracle(sample: Sample, horizon: int, split: str, step: int, tasks: range) -> dict[str, Tensor]:
    goal = sample(split, step, tasks).query.y[:, 0]
    return {"oracle, which knows the goal": straight_walk(goal, horizon)}


def _save_paths(horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write paths.png: five paths a task before adaptation, after one inner step and after the last."""
    from ..pictures import after, plt, save_panels  # imported here because matplotlib takes half a second

    figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained", squeeze=False)
    for axis, task, trajectory in zip(axes.flat, tasks, phis, strict=False):
        last = len(trajectory) - 1
        for step, color in {0: "tab:gray", 1: "tab:orange", last: "tab:blue"}.items():
            seen = rollouts(apply, trajectory[min(step, last)], NAVIGATION, *noise_and_goal(task.query, horizon))
            paths = torch.where(seen.weights[..., None] > 0, seen.states, torch.nan)[:5].cpu()  # [5, horizon, 2]
            lines = axis.plot(*paths.permute(2, 1, 0), color=color, alpha=0.6, linewidth=1)
            lines[0].set_label(after(step))
        axis.plot(*task.query.y[0].cpu(), "*", color="tab:red", markersize=14, label="goal")
        axis.plot(0, 0, "o", color="black", markersize=5, label="start")
        axis.set_aspect("equal")
    save_panels(figure, "Unseen goals: five paths of the policy, as it adapts", folder / "paths.png")
