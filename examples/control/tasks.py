"""Sources of tasks for a policy. A policy collects its own data, so a task is a goal and the noise of the actions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fmaml
from fmaml import Batch, Task
from fmaml.data import Metric, Source, task_keys
from fmaml.data.source import Show
from fmaml.losses import Apply, Criterion
from fmaml.rng import fold, uniform
from fmaml.types import LossFn, MetricFn

from .objective import mean_return, policy_loss
from .rollouts import Environment

GOAL, SUPPORT, QUERY = range(3)  # counters of a task's random numbers. Never renumber: it changes the tasks
RETURN = Metric("return", fmaml.mse, ".2f", more_is_better=True)


class Acting(NamedTuple):
    """The common settings of both sources: episodes, their length, and the loss."""

    episodes: int  # in the support set, and in the query set
    horizon: int  # steps of an episode
    discount: float  # this and the next two: see `policy_loss`
    gae_lambda: float
    dice_lambda: float


def policy_source(
    environment: Environment,
    goal: Callable[[Tensor], Tensor],
    acting: Acting,
    seed: int,
    device: torch.device,
    *,
    states: int,
    actions: int,
    about: dict[str, Any],
    show: Show,
) -> Source:
    """Make a source of tasks for a policy that sees a state of ``states`` numbers and returns ``actions`` numbers.

    Support and query x are the noise, float32 [tasks, rows, actions]; y is the goal, float32 [tasks, rows, *goal]. Each
    step of each episode is a row. ``goal`` draws the goals, float32 [tasks, *goal], from keys, int64 [tasks].
    """
    rows = acting.episodes * acting.horizon

    def sample(split: str, step: int, tasks: range) -> Task:
        keys = task_keys(seed, split, step, tasks, device)
        goals = goal(fold(keys, GOAL))[:, None].expand(-1, rows, -1).contiguous()
        return Task(*(Batch(normal(fold(keys, part), rows, actions), goals) for part in (SUPPORT, QUERY)))

    def loss_of(apply: Apply) -> LossFn:
        return policy_loss(
            apply,
            environment,
            acting.horizon,
            discount=acting.discount,
            gae_lambda=acting.gae_lambda,
            dice_lambda=acting.dice_lambda,
        )

    def metric_of(apply: Apply, criterion: Criterion) -> MetricFn:
        return mean_return(apply, environment, acting.horizon)

    metric_of.__name__ = "return"  # in the names of columns
    return Source(
        sample,
        (states,),
        2 * actions,
        about,
        show,
        criterion=fmaml.mse,  # needs outputs; `loss` is used instead
        metric=RETURN,
        settings=(metric_of,),
        loss=loss_of,
    )


def normal(keys: Tensor, rows: int, columns: int) -> Tensor:
    """Draw standard normal numbers, float32 [tasks, rows, columns] (Box and Muller)."""
    pairs = math.ceil(columns / 2)
    counters = torch.arange(pairs * 2 * rows, device=keys.device)
    drawn = uniform(fold(keys[:, None], counters)).unflatten(1, (pairs, 2, rows))
    first, second = drawn.unbind(2)  # [tasks, pairs, rows]
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)  # [tasks, pairs, rows, 2]
    return both.transpose(1, 2).flatten(2)[..., :columns].float()
