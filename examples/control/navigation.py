"""Navigation in the plane, the first reinforcement learning experiment of MAML (arXiv 1703.03400, section 5.3)."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from fmaml.data import Source
from fmaml.rng import fold, uniform
from fmaml.setting_types import KeepsTestTasks, Size, Unit, gives

from .pictures import save_paths
from .rollouts import Environment
from .tasks import Acting, policy_source

SPEED = 0.1  # largest step along each axis
NEAR = 0.01  # an episode ends if both coordinates are so near to the goal


def start_at_the_origin(goal: Tensor) -> Tensor:
    return torch.zeros_like(goal)


def walk_on(position: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move by the action, at most 1. The reward is minus the distance after the move."""
    position = position + SPEED * action.clamp(-1, 1)
    apart = position - goal
    return position, -apart.square().sum(-1).sqrt(), (apart.abs() < NEAR).all(-1)


NAVIGATION = Environment(start_at_the_origin, walk_on)


def straight_walk(goal: Tensor, horizon: int) -> Tensor:
    """The return of the oracle policy: it walks to the goal [.., 2] along both axes at full speed. Returns [..]."""
    steps = torch.arange(1, horizon + 1, device=goal.device, dtype=goal.dtype)
    left = (goal.abs()[..., None] - SPEED * steps).clamp(min=0)  # [.., 2, horizon]
    return -left.square().sum(-2).sqrt().sum(-1)


@gives("numbers", "own_loss")
def navigation(
    *,
    seed: int,
    device: torch.device,
    episodes: Size = 20,
    horizon: Size = 100,
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
    baseline. ``dice_lambda`` sets how far back its higher derivatives look, see `policy_loss` in `objective.py`.

    Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017, section
    5.3.
    """
    about = {
        "data": "navigation",
        "task": f"navigation, {episodes} episodes",
        "protocol": f"navigation in the plane, {episodes} support and {episodes} query episodes of {horizon} steps",
    }
    acting = Acting(episodes, horizon, discount, gae_lambda, dice_lambda)
    show = partial(save_paths, NAVIGATION, horizon)
    source = policy_source(NAVIGATION, _goal, acting, seed, device, states=2, actions=2, about=about, show=show)

    def oracle(split: str, step: int, tasks: range) -> dict[str, Tensor]:
        goal = source.sample(split, step, tasks).query.y[:, 0]
        return {"oracle, which knows the goal": straight_walk(goal, horizon)}

    return source._replace(references=oracle)


def _goal(keys: Tensor) -> Tensor:
    """Draw goals, float32 [tasks, 2]."""
    counters = torch.arange(2, device=keys.device)
    return (uniform(fold(keys[:, None], counters)) - 0.5).float()
