"""Forecasts to compare with: naive, drift, and linear regressions of the lags, pooled and of one series."""

from typing import NamedTuple

import torch
from torch import Tensor

import fmaml
from fmaml.data.source import Sample

TRAINING, VALIDATION = 2000, 400  # tasks
PENALTIES = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
ROUNDS = 30  # of reweighting, for the least absolute error


class Baselines(NamedTuple):
    """Regressions of training series, and penalties chosen on validation series."""

    pooled: Tensor  # ridge [features, horizons]
    pooled_absolute: Tensor  # the same for the absolute error
    penalty: float  # of the ridge regression of one series


def fit_baselines(sample: Sample) -> Baselines:
    """Fit the pooled regressions to training tasks, and choose each penalty on the queries of validation tasks."""
    training, validation = sample("train", 0, range(TRAINING)), sample("val", 0, range(VALIDATION))
    x, y = (torch.cat([part.flatten(0, 1) for part in parts]) for parts in zip(*training, strict=True))
    design, y = with_one(x), y.double()
    pooled = best([ridge(design, y, penalty) for penalty in PENALTIES], validation)
    weights, absolute = torch.ones_like(y), pooled
    for _ in range(ROUNDS):
        columns = [ridge(design, y[:, [h]], 1.0, weights[:, [h]]) for h in range(y.shape[1])]
        absolute = torch.cat(columns, 1)
        weights = 1 / (design @ absolute - y).abs().clamp(min=1e-2)
    own = {penalty: float(error(validation, of_series(validation, penalty)).mean()) for penalty in PENALTIES}
    return Baselines(pooled, absolute, min(own, key=lambda penalty: own[penalty]))


def errors(fitted: Baselines, task: fmaml.Task) -> dict[str, Tensor]:
    """Name -> the mean absolute errors of stacked tasks at each horizon, [tasks, horizons]."""
    ahead = torch.arange(1, task.query.y.shape[-1] + 1, dtype=torch.float64, device=task.query.y.device)
    drift = task.support.y[..., :1].double().mean(1, keepdim=True) * ahead  # [tasks, 1, horizons]
    design = with_one(task.query.x)
    predictions = {
        "naive": torch.zeros_like(task.query.y),
        "drift": drift,
        "ridge, series": of_series(task, fitted.penalty),
        "ridge, pooled": design @ fitted.pooled,
        "absolute, pooled": design @ fitted.pooled_absolute,
    }
    return {name: error(task, predicted) for name, predicted in predictions.items()}


def error(task: fmaml.Task, predicted: Tensor) -> Tensor:
    """The mean absolute error at each horizon, [tasks, horizons]."""
    return (predicted - task.query.y).abs().mean(1)


def of_series(task: fmaml.Task, penalty: float) -> Tensor:
    """Forecasts of the queries by a ridge regression of the support set, [tasks, queries, horizons]."""
    return with_one(task.query.x) @ ridge(with_one(task.support.x), task.support.y.double(), penalty)


def best(candidates: list[Tensor], validation: fmaml.Task) -> Tensor:
    return min(candidates, key=lambda w: float(error(validation, with_one(validation.query.x) @ w).mean()))


def with_one(x: Tensor) -> Tensor:
    """x [.., features] in float64, with a column of ones."""
    return torch.cat([x.double(), torch.ones_like(x[..., :1], dtype=torch.float64)], -1)


def ridge(x: Tensor, y: Tensor, penalty: float, weights: Tensor | None = None) -> Tensor:
    """argmin over w of sum weights |x w - y|^2 + penalty |w|^2: [.., features, horizons]."""
    weighted = x if weights is None else x * weights
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(weighted.mT @ x + penalty * eye, weighted.mT @ y)
