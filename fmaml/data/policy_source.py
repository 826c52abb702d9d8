"""Sources of tasks for a policy: its data come from what it does, so a task is the noise of its actions and a goal."""

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
    """How long a policy acts, and how far its loss looks: the settings that sources for policies have in common."""

    episodes: int  # of the support set, and of the query set
    horizon: int  # steps of an episode
    discount: float  # this and those below as in `fmaml.rl.objective.policy_loss`
    gae_lambda: float
    dice_lambda: float


@dataclass(frozen=True)
class ReturnOf:
    """How a policy is judged: by the mean return of its query episodes. A class, so that a source can be pickled."""

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
    """The source of tasks of a policy that sees ``states`` numbers and acts by ``actions``.

    Returns a source with support and query x float32 [tasks, rows, actions], the noise, and y float32 [tasks, rows,
    *goal], with a row for every step of every episode. ``goal`` draws what tells a task apart from keys int64 [tasks]:
    float32 [tasks, *goal].
    """
    horizon, looks = acting.horizon, {name: getattr(acting, name) for name in Acting._fields[2:]}
    return Source(
        partial(sample_noise, goal, acting.episodes * horizon, actions, seed, device),
        (states,),
        2 * actions,
        about,
        show,
        criterion=mse,  # of outputs, which `loss` is not
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
    """Stacked tasks of ``rows`` steps a set, see `policy_source`."""
    keys = task_keys(seed, split, step, tasks, device)
    goals = goal(fold(keys, _GOAL))[:, None].expand(-1, rows, -1).contiguous()
    return Task(*(Batch(normal(fold(keys, part), rows, actions), goals) for part in (_SUPPORT, _QUERY)))


def normal(keys: Tensor, rows: int, columns: int) -> Tensor:
    """Standard normal numbers, float32 [tasks, rows, columns] (Box and Muller)."""
    pairs = math.ceil(columns / 2)
    counters = torch.arange(pairs * 2 * rows, device=keys.device)
    drawn = uniform(fold(keys[:, None], counters)).unflatten(1, (pairs, 2, rows))
    first, second = drawn.unbind(2)  # [tasks, pairs, rows]
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)  # [tasks, pairs, rows, 2]
    return both.transpose(1, 2).flatten(2)[..., :columns].float()
