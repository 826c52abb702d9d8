"""Navigation in the plane, the first reinforcement learning of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ...losses import Apply
from ...pickling import picklable
from ...rl.navigation import NAVIGATION, straight_walk
from ...rl.rollouts import noise_and_goal, rollouts
from ...rng import fold, uniform
from ...setting_types import CostsMemory, Size, Unit
from ...types import Params, Task
from ..acting import Discounting, acting, tasks_of_goals
from ..source import Source


@picklable
def navigation(
    *,
    seed: int,
    device: torch.device,
    episodes: Annotated[Size, CostsMemory] = 20,
    horizon: Annotated[Size, CostsMemory] = 100,
    discount: Unit = 0.99,
    gae_lambda: Unit = 1.0,
    dice_lambda: Unit = 1.0,
) -> Source:
    """Walking from the origin to a goal, uniform in the square from -0.5 to 0.5, which only the rewards tell.

    Returns a source of tasks whose examples are the steps of ``episodes`` episodes of ``horizon`` steps: support x
    float32 [tasks, episodes * horizon, 2], the noise of the actions, and y float32 of the same shape, the goal, which
    the policy does not see; the query set the same. The episodes are those of the parameters that the loss is taken of,
    so every inner step acts anew, with the same noise. A step is at most 0.1 along each axis, the reward minus the
    distance (as in the authors' code; the paper says its square), and an episode ends within 0.01 of the goal.

    The loss is that of policy gradients with generalised advantages (``discount``, ``gae_lambda``) over a linear
    baseline; ``dice_lambda`` is how far back its higher derivatives look, see `fmaml.rl.objective.policy_loss`.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """
    sample = tasks_of_goals(_goal, episodes * horizon, 2, seed=seed, device=device)

    def references(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        goal = sample(split, step, tasks).query.y[:, 0]
        return {"oracle, which knows the goal": straight_walk(goal, horizon)}

    about = {
        "data": "navigation",
        "task": f"navigation, {episodes} episodes",
        "protocol": f"navigation in the plane, {episodes} support and {episodes} query episodes of {horizon} steps",
    }
    return acting(
        NAVIGATION,
        sample,
        horizon,
        Discounting(discount, gae_lambda, dice_lambda),
        states=2,
        actions=2,
        about=about,
        show=partial(_save_paths, horizon),
        references=references,
    )


def _goal(keys: Tensor) -> Tensor:
    """Goals, float32 [tasks, 2]."""
    counters = torch.arange(2, device=keys.device)
    return (uniform(fold(keys[:, None], counters)) - 0.5).float()


def _save_paths(horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write paths.png: for each task some paths before adaptation, after one inner step and after the last."""
    from ..motion_pictures import paths_figure  # imported here because matplotlib takes half a second
    from ..pictures import save_figure

    def paths(params: Params, task: Task) -> Tensor:
        seen = rollouts(apply, params, NAVIGATION, *noise_and_goal(task.query, horizon))
        return torch.where(seen.weights[..., None] > 0, seen.states, torch.nan)

    goals = [task.query.y[0] for task in tasks]
    walked = [[paths(phi, task) for phi in trajectory] for task, trajectory in zip(tasks, phis, strict=True)]
    save_figure(paths_figure(walked, goals), folder / "paths.png")
