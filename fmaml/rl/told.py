"""An environment whose policy is told what tells its tasks apart: an oracle, which has nothing to adapt to."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .rollouts import Environment


def told(environment: Environment) -> Environment:
    """The same environment, with the goal at the end of each state: [n, state + goal]."""
    prepared = environment.prepared and partial(_prepared, environment.prepared)
    return Environment(partial(_start, environment), partial(_step, environment), prepared)


def _start(environment: Environment, goal: Tensor) -> Tensor:
    return torch.cat([environment.start(goal), goal], -1)


def _step(environment: Environment, state: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    after, reward, ended = environment.step(state[..., : -goal.shape[-1]], action, goal)
    return torch.cat([after, goal], -1), reward, ended


def _prepared(prepare: Callable[[Tensor], Environment], goal: Tensor) -> Environment:
    return told(prepare(goal))
