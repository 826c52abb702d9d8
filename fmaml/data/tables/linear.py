"""Linear predictors to compare a network with: of all training rows, or of a task's support set."""

import torch
from torch import Tensor

from ...types import Task

RIDGE = 1.0  # the penalty, on standardised columns


def ridge(x: Tensor, y: Tensor, penalty: float = RIDGE) -> Tensor:
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


def linear_references(task: Task, pooled: Tensor) -> dict[str, Tensor]:
    """Name -> the mean squared error on the query set [tasks], of stacked tasks; ``pooled`` are `ridge`'s weights.

    The mean of the support set; the linear predictor of all training rows; the same moved to the support set's mean;
    and the linear predictor of the support set.
    """
    support, query = task
    shift = (support.y - with_ones(support.x.double()) @ pooled).mean(1, keepdim=True)  # [tasks, 1, 1]
    of_pooled = with_ones(query.x.double()) @ pooled
    predictions = {
        "mean of the support set": support.y.double().mean(1, keepdim=True).expand_as(query.y),
        "ridge of the training rows": of_pooled,
        "the same, moved to the support set": of_pooled + shift,
        "ridge of the support set": with_ones(query.x.double()) @ ridge(support.x, support.y),
    }
    return {name: (predicted - query.y).square().mean((1, 2)) for name, predicted in predictions.items()}
