"""Sources of tasks for a policy. A policy collects its own data, so a task is a goal and the noise of the actions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..losses import Apply, Criterion, mse
from ..rl.objective import mean_return, policy_loss
from ..rl.rollouts import Environment
from ..rng import fold, uniform
from ..types import Batch, MetricFn, Task
from .source import About, Metric, Show, Source, task_keys

_GOAL, _SUPPORT, _QUERY = range(3)  # counters of a task's random numbers. Never renumber: it changes the tasks
RETURN = Metric("return", mse, ".2f", more_is_better=True)


class Acting(NamedTuple):
    """The common settings of sources for policies: episodes, their length, and the loss."""

    episodes: int  # in the support set, and in the query set
    horizon: int  # steps of an episode
    discount: float  # this and the next two: see `fmaml.rl.objective.policy_loss`
    gae_lambda: float
    dice_lambda: float


@dataclass(frozen=True)
class ReturnOf:
    """The metric of a policy: the mean return of its query episodes. It is a class so that sources can be pickled."""

    environment: Environment
    horizon: int
    __name__: ClassVar[str] = "return"

    def __call__(self, apply: Apply, criterion: Criterion) -> MetricFn:
        return mean_return(apply, self.environment, self.horizon)


def policy_source(
    environment: Environment,
    goal: Callable[[Tensor], Tensor],
    acting: Acting,
    seed: int,
    device: torch.device,
    *,
    states: int,
    actions: int,
    about: About,
    show: Show,
) -> Source:
    """Make a source of tasks for a policy that sees a state of ``states`` numbers and returns ``actions`` numbers.

    Support and query x are the noise, float32 [tasks, rows, actions]; y is the goal, float32 [tasks, rows, *goal]. Each
    step of each episode is a row. ``goal`` draws the goals, float32 [tasks, *goal], from keys, int64 [tasks].
    """
    horizon, looks = acting.horizon, {name: getattr(acting, name) for name in Acting._fields[2:]}
    return Source(
        partial(sample_noise, goal, acting.episodes * horizon, actions, seed, device),
        (states,),
        2 * actions,
        about,
        show,
        criterion=mse,  # needs outputs; `loss` is used instead
        metric=RETURN,
        settings=(ReturnOf(environment, horizon),),
        loss=partial(policy_loss, environment=environment, horizon=horizon, **looks),
    )


def sample_noise(
    goal: Callable[[Tensor], Tensor],
    rows: int,
    actions: int,
    seed: int,
    device: torch.device,
    split: str,
    step: int,
    tasks: range,
) -> Task:
    """Draw stacked tasks with ``rows`` steps a set, see `policy_source`."""
    keys = task_keys(seed, split, step, tasks, device)
    goals = goal(fold(keys, _GOAL))[:, None].expand(-1, rows, -1).contiguous()
    return Task(*(Batch(normal(fold(keys, part), rows, actions), goals) for part in (_SUPPORT, _QUERY)))


def normal(keys: Tensor, rows: int, columns: int) -> Tensor:
    """Draw standard normal numbers, float32 [tasks, rows, columns] (Box and Muller)."""
    pairs = math.ceil(columns / 2)
    counters = torch.arange(pairs * 2 * rows, device=keys.device)
    drawn = uniform(fold(keys[:, None], counters)).unflatten(1, (pairs, 2, rows))
    first, second = drawn.unbind(2)  # [tasks, pairs, rows]
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)  # [tasks, pairs, rows, 2]
    return both.transpose(1, 2).flatten(2)[..., :columns].float()
