"""Walking to a goal in the plane (arXiv 1703.03400, section 5.3), and environments that show their goal."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .rollouts import Environment

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


def with_goal(environment: Environment) -> Environment:
    """Append the goal to each state, [n, state + goal]. A policy there need not adapt."""
    prepared = environment.prepared and partial(_prepared, environment.prepared)
    return Environment(partial(_start, environment), partial(_step, environment), prepared)


def _start(environment: Environment, goal: Tensor) -> Tensor:
    return torch.cat([environment.start(goal), goal], -1)


def _step(environment: Environment, state: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    after, reward, ended = environment.step(state[..., : -goal.shape[-1]], action, goal)
    return torch.cat([after, goal], -1), reward, ended


def _prepared(prepare: Callable[[Tensor], Environment], goal: Tensor) -> Environment:
    return with_goal(prepare(goal))
