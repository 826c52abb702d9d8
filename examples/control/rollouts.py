"""Rollouts of a Gaussian policy, as a pure function of its parameters and of noise drawn in advance.

A batch of a task holds only the noise of the actions. The trajectories depend on the parameters, as in algorithm 3 of
arXiv 1703.03400, and are the same for the same seed.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fmaml import Batch, Params
from fmaml.losses import Apply
from fmaml.tree import detach


class Environment(NamedTuple):
    """A body and its task. Both functions take many episodes at once, and can be vmapped."""

    start: Callable[[Tensor], Tensor]  # goal [n, *goal] -> state [n, *state]
    step: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    """state, action [n, actions], goal -> next state, reward [n], whether the episode ends [n]."""
    prepared: "Callable[[Tensor], Environment] | None" = None  # goal -> the environment with constants for all steps


class Rollouts(NamedTuple):
    """Episodes of one task. After the end of an episode its rewards and weights are 0."""

    states: Tensor  # [n, horizon, *state]
    actions: Tensor  # [n, horizon, actions]
    rewards: Tensor  # [n, horizon]
    weights: Tensor  # [n, horizon]: 1 up to the end of the episode, then 0


def rollouts(apply: Apply, params: Params, environment: Environment, noise: Tensor, goal: Tensor) -> Rollouts:
    """Act by ``mean + exp(log_std) * noise``. The result is constant with respect to the parameters.

    Args:
        apply: the policy: (params, states [n, *state]) -> [n, 2 * actions], means and logarithms of deviations.
        params: of the policy.
        environment: the environment of the policy.
        noise: standard normal, [n, horizon, actions].
        goal: the task's goal, [n, *goal].
    """
    environment = environment.prepared(goal) if environment.prepared else environment
    params, state = detach(params), environment.start(goal)
    weight = torch.ones_like(noise[:, 0, 0])
    steps: list[Rollouts] = []
    for drawn in noise.unbind(1):
        mean, log_std = apply(params, state).chunk(2, -1)
        action = mean + log_std.exp() * drawn
        after, reward, ended = environment.step(state, action, goal)
        steps.append(Rollouts(state, action, reward * weight, weight))
        state, weight = after, weight * (~ended).to(weight.dtype)
    return Rollouts(*(torch.stack(column, 1) for column in zip(*steps, strict=True)))


def log_probability(output: Tensor, actions: Tensor) -> Tensor:
    """Log-probabilities [n] of actions [n, actions] under the policy's output [n, 2 * actions]."""
    mean, log_std = output.chunk(2, -1)
    scaled = (actions - mean) * (-log_std).exp()
    each = 0.5 * (scaled.square() + math.log(2 * math.pi)) + log_std
    return each.sum(-1).neg()


def noise_and_goal(batch: Batch, horizon: int) -> tuple[Tensor, Tensor]:
    """Split a batch, one row per step, into the noise [n, horizon, actions] and the goal [n, *goal]."""
    noise, goals = (rows.view(-1, horizon, *rows.shape[1:]) for rows in (batch.x, batch.y))
    return noise, goals[:, 0]


def with_goal(environment: Environment) -> Environment:
    """Append the goal to each state, [n, state + goal]. A policy there need not adapt."""

    def start(goal: Tensor) -> Tensor:
        return torch.cat([environment.start(goal), goal], -1)

    def step(state: Tensor, action: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after, reward, ended = environment.step(state[..., : -goal.shape[-1]], action, goal)
        return torch.cat([after, goal], -1), reward, ended

    def prepared(goal: Tensor) -> Environment:
        return with_goal(environment.prepared(goal) if environment.prepared else environment)

    return Environment(start, step, environment.prepared and prepared)
