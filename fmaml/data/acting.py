"""Sources of tasks for a policy, whose data come from what it does: noise for its actions, its loss and its metric."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..losses import Apply, Criterion, mse
from ..rl.objective import mean_return, policy_loss
from ..rl.rollouts import Environment
from ..rng import fold, uniform
from ..types import Batch, LossFn, MetricFn, Task
from .source import About, Metric, Sample, Show, Source, task_keys

_GOAL, _SUPPORT, _QUERY = range(3)  # counters of a task's random numbers. Never renumber: it changes the tasks
RETURN = Metric("return", mse, ".2f", more_is_better=True)


class Discounting(NamedTuple):
    """How far a policy's loss looks, see `fmaml.rl.objective.policy_loss`."""

    discount: float
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


def acting(
    environment: Environment,
    sample: Sample,
    horizon: int,
    discounting: Discounting,
    *,
    states: int,
    actions: int,
    about: About,
    show: Show,
    references: Callable[[str, int, range], dict[str, Tensor]] | None = None,
) -> Source:
    """The source of tasks of a policy that sees ``states`` numbers and acts by ``actions``."""

    def loss(apply: Apply) -> LossFn:
        return policy_loss(apply, environment, horizon, **discounting._asdict())

    return Source(
        sample,
        (states,),
        2 * actions,
        about,
        show,
        criterion=mse,  # of outputs, which `loss` is not
        metric=RETURN,
        settings=(ReturnOf(environment, horizon),),
        references=references,
        loss=loss,
    )


def tasks_of_goals(
    goal: Callable[[Tensor], Tensor], rows: int, actions: int, *, seed: int, device: torch.device
) -> Sample:
    """A ``sample`` of tasks of ``rows`` steps a set: x [tasks, rows, actions] the noise, y [tasks, rows, *goal].

    ``goal`` draws what tells a task apart from keys int64 [tasks]: float32 [tasks, *goal].
    """

    def sample(split: str, step: int, tasks: range) -> Task:
        keys = task_keys(seed, split, step, tasks, device)
        goals = goal(fold(keys, _GOAL))[:, None].expand(-1, rows, -1).contiguous()
        return Task(*(Batch(normal(fold(keys, part), rows, actions), goals) for part in (_SUPPORT, _QUERY)))

    return sample


def normal(keys: Tensor, rows: int, columns: int) -> Tensor:
    """Standard normal numbers, float32 [tasks, rows, columns] (Box and Muller)."""
    pairs = math.ceil(columns / 2)
    counters = torch.arange(pairs * 2 * rows, device=keys.device)
    drawn = uniform(fold(keys[:, None], counters)).unflatten(1, (pairs, 2, rows))
    first, second = drawn.unbind(2)  # [tasks, pairs, rows]
    radius, angle = (-2 * torch.log1p(-first)).sqrt(), 2 * math.pi * second
    both = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)  # [tasks, pairs, rows, 2]
    return both.transpose(1, 2).flatten(2)[..., :columns].float()
