"""Walking to a goal in the plane (arXiv 1703.03400, section 5.3), and environments that show their goal."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .rollouts import Environment

SPEED = 0.1  # of a step, at most, along each axis
NEAR = 0.01  # an episode ends when both coordinates are this near


def start_at_the_origin(goal: Tensor) -> Tensor:
    return torch.zeros_like(goal)


def walk_on(position: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move by the action, an action of 1 being as fast as can be; the reward is minus the distance then."""
    position = position + SPEED * action.clamp(-1, 1)
    apart = position - goal
    return position, -apart.square().sum(-1).sqrt(), (apart.abs() < NEAR).all(-1)


NAVIGATION = Environment(start_at_the_origin, walk_on)


def straight_walk(goal: Tensor, horizon: int) -> Tensor:
    """The return of who knows the goal [.., 2] and walks there along both axes as fast as can be: [..]."""
    steps = torch.arange(1, horizon + 1, device=goal.device, dtype=goal.dtype)
    left = (goal.abs()[..., None] - SPEED * steps).clamp(min=0)  # [.., 2, horizon]
    return -left.square().sum(-2).sqrt().sum(-1)


def with_goal(environment: Environment) -> Environment:
    """The environment with the goal at the end of each state, [n, state + goal]: its policy has nothing to adapt to."""
    prepared = environment.prepared and partial(_prepared, environment.prepared)
    return Environment(partial(_start, environment), partial(_step, environment), prepared)


def _start(environment: Environment, goal: Tensor) -> Tensor:
    return torch.cat([environment.start(goal), goal], -1)


def _step(environment: Environment, state: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    after, reward, ended = environment.step(state[..., : -goal.shape[-1]], action, goal)
    return torch.cat([after, goal], -1), reward, ended


def _prepared(prepare: Callable[[Tensor], Environment], goal: Tensor) -> Environment:
    return with_goal(prepare(goal))
