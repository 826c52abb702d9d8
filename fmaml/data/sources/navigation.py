"""Navigation in the plane, the first reinforcement learning of MAML (arXiv 1703.03400, section 5.3)."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...losses import Apply, Criterion, mse
from ...pickling import picklable
from ...ranges import CostsMemory, Size, Unit
from ...rl.navigation import NAVIGATION, straight_walk
from ...rl.objective import mean_return, policy_loss
from ...rl.rollouts import noise_and_goal, rollouts
from ...rng import fold, uniform
from ...types import Batch, LossFn, MetricFn, Params, Task
from ..rng import task_keys
from ..source import Metric, Source

_GOAL, _SUPPORT, _QUERY = range(3)  # counters of a task's random numbers. Never renumber: it changes the tasks
_ACTIONS = 2
RETURN = Metric("return", mse, ".2f", more_is_better=True)


@dataclass(frozen=True)
class ReturnOf:
    """How a policy is judged: by the mean return of its query episodes. A class, so that a source can be pickled."""

    horizon: int
    __name__: ClassVar[str] = "return"

    def __call__(self, apply: Apply, criterion: Criterion) -> MetricFn:
        return mean_return(apply, NAVIGATION, self.horizon)


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
    so every inner step acts anew. A step is at most 0.1 along each axis, the reward minus the distance (as in the
    authors' code; the paper says its square), and an episode ends within 0.01 of the goal.

    The loss is that of policy gradients with generalised advantages (``discount``, ``gae_lambda``) over a linear
    baseline; ``dice_lambda`` is how far back its higher derivatives look, see `fmaml.rl.objective.policy_loss`.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """

    def sample(split: str, step: int, tasks: range) -> Task:
        keys = task_keys(seed, split, step, tasks, device)
        counters = torch.arange(2, device=device)
        goal = (uniform(fold(fold(keys, _GOAL)[:, None], counters)) - 0.5).float()  # [tasks, 2]
        rows = episodes * horizon
        goals = goal[:, None].expand(-1, rows, -1).contiguous()
        return Task(*(Batch(_normal(fold(keys, part), rows), goals) for part in (_SUPPORT, _QUERY)))

    def loss(apply: Apply) -> LossFn:
        options = {"discount": discount, "gae_lambda": gae_lambda, "dice_lambda": dice_lambda}
        return policy_loss(apply, NAVIGATION, horizon, **options)

    def references(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        goal = sample(split, step, tasks).query.y[:, 0]
        return {"oracle, which knows the goal": straight_walk(goal, horizon)}

    about = {
        "data": "navigation",
        "task": f"navigation, {episodes} episodes",
        "protocol": f"navigation in the plane, {episodes} support and {episodes} query episodes of {horizon} steps",
    }
    return Source(
        sample,
        (_ACTIONS,),
        2 * _ACTIONS,
        about,
        partial(_save_paths, horizon),
        criterion=mse,  # of outputs, which `loss` is not
        metric=RETURN,
        settings=(ReturnOf(horizon),),
        references=references,
        loss=loss,
    )


def _normal(keys: Tensor, rows: int) -> Tensor:
    """Standard normal numbers, float32 [tasks, rows, actions] (Box and Muller)."""
    counters = torch.arange(2 * rows, device=keys.device)
    first, second = uniform(fold(keys[:, None], counters)).unflatten(1, (2, rows)).unbind(1)  # [tasks, rows]
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    return torch.stack([radius * angle.cos(), radius * angle.sin()], -1).float()


def _save_paths(horizon: int, folder: Path, tasks: list[Task], phis: list[list[Params]], apply: Apply) -> None:
    """Write paths.png: for each task some paths before adaptation, after one inner step and after the last."""
    from ..pictures import paths_figure, save_figure  # imported here because matplotlib takes half a second

    def paths(params: Params, task: Task) -> Tensor:
        seen = rollouts(apply, params, NAVIGATION, *noise_and_goal(task.query, horizon))
        return torch.where(seen.weights[..., None] > 0, seen.states, torch.nan)

    goals = [task.query.y[0] for task in tasks]
    walked = [[paths(phi, task) for phi in trajectory] for task, trajectory in zip(tasks, phis, strict=True)]
    save_figure(paths_figure(walked, goals), folder / "paths.png")
