"""Linear predictors to compare with a network: fitted to all training rows, or to a task's support set."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...types import Task

PENALTIES = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0)  # on standardised columns


class Linear(NamedTuple):
    """The linear predictors fitted to training tasks."""

    pooled: Tensor  # [features + 1, 1]: the weights of `ridge` for all training rows
    penalty: float  # the best one for `ridge` of a support set, on the queries of training tasks


def ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """argmin over w of |[x 1] w - y|^2 + penalty |w|^2, the constant not penalised: [..., features + 1, 1].

    x is [..., n, features], y [..., n, 1]; computed in float64.
    """
    design = with_ones(x.double())
    free = torch.ones(design.shape[-1], dtype=design.dtype, device=x.device)
    free[-1] = 0
    return torch.linalg.solve(design.mT @ design + penalty * free.diag(), design.mT @ y.double())


def with_ones(x: Tensor) -> Tensor:
    """x [..., n, features] with a column of ones."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def fit_linear(x: Tensor, y: Tensor, training: Task) -> Linear:
    """Fit to all training rows x [n, features] and y [n, 1], and choose the penalty on stacked training tasks."""
    scores = {penalty: float(_error(training, _of_support(training, penalty)).mean()) for penalty in PENALTIES}
    return Linear(ridge(x, y, 1.0), min(scores, key=lambda penalty: scores[penalty]))


def linear_references(task: Task, linear: Linear) -> dict[str, Tensor]:
    """The mean squared errors of reference predictors on the query sets of stacked tasks: name -> [tasks].

    - The mean of the support set.
    - The ridge regression of all training rows.
    - The same, shifted to the support set's mean.
    - The ridge regression of the support set.
    """
    support, query = task
    shift = (support.y - with_ones(support.x.double()) @ linear.pooled).mean(1, keepdim=True)  # [tasks, 1, 1]
    of_pooled = with_ones(query.x.double()) @ linear.pooled
    predictions = {
        "mean of the support set": support.y.double().mean(1, keepdim=True),
        "ridge of the training rows": of_pooled,
        "the same, moved to the support set": of_pooled + shift,
        "ridge of the support set": _of_support(task, linear.penalty),
    }
    return {name: _error(task, predicted) for name, predicted in predictions.items()}


def _of_support(task: Task, penalty: float) -> Tensor:
    return with_ones(task.query.x.double()) @ ridge(task.support.x, task.support.y, penalty)


def _error(task: Task, predicted: Tensor) -> Tensor:
    """The mean squared error of each task: [tasks]."""
    return (predicted - task.query.y).square().mean((1, 2))
