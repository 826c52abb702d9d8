"""What an action was worth: generalised advantages over a linear baseline, by matrix products."""

from typing import Any, cast

import torch
from torch import Tensor

from .rollouts import Rollouts

RIDGE = 1e-5  # as in the baseline of arXiv 1604.06778, which 1703.03400 uses


def advantages(seen: Rollouts, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantages (arXiv 1506.02438, equation 16), mean 0 and deviation 1 over a task's steps: [n, horizon].

    The baseline is linear in the state, its square and powers of the time, and fitted to these rollouts, as published.
    """
    values = fitted_values(seen, discounted(seen.rewards, discount))
    after = torch.cat([values[:, 1:] * seen.weights[:, 1:], torch.zeros_like(values[:, :1])], 1)
    deltas = (seen.rewards + discount * after - values) * seen.weights
    found = discounted(deltas, discount * gae_lambda)
    steps = seen.weights.sum()
    centred = (found - (found * seen.weights).sum() / steps) * seen.weights
    return centred / ((centred.square().sum() / steps).sqrt() + 1e-8)


def discounted(x: Tensor, rate: float) -> Tensor:
    """sum over k of rate^k x[t + k], for each t; x [n, horizon]."""
    return x @ powers(rate, x)


def powers(rate: float, x: Tensor) -> Tensor:
    """The matrix [horizon, horizon] with rate^(i - j) where i >= j, else 0."""
    steps = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    apart = steps[:, None] - steps
    return torch.where(apart >= 0, torch.pow(rate, apart.clamp(min=0)), 0)


def fitted_values(seen: Rollouts, returns: Tensor) -> Tensor:
    """The baseline: the ridge regression of the returns, [n, horizon], on features of state and time."""
    features = baseline_features(seen).double()  # [n, horizon, features]
    rows = (features * seen.weights[..., None]).flatten(0, 1)
    gram = rows.T @ rows + RIDGE * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    moments = rows.T @ (returns * seen.weights).flatten().double()
    weights: Tensor = cast(Any, torch.linalg).solve(gram, moments)
    return (features @ weights).to(returns.dtype)


def baseline_features(seen: Rollouts) -> Tensor:
    """State, its square, time, its square and cube, and 1: [n, horizon, features]."""
    states = seen.states.flatten(2)
    time = torch.arange(states.shape[1], device=states.device, dtype=states.dtype) / 100
    of_time = torch.stack([time, time**2, time**3, torch.ones_like(time)], -1)
    return torch.cat([states, states.square(), of_time.expand(len(states), -1, -1)], -1)
