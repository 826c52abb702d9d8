"""The objective of policy gradients. Its higher derivatives include the change of the rollouts.

An action is weighted by its generalised advantage over a linear baseline, computed by matrix products.
"""

from typing import Any, cast

import torch
from torch import Tensor

from fmaml import Batch, Params, Task
from fmaml.losses import Apply
from fmaml.types import LossFn, MetricFn

from .rollouts import Environment, Rollouts, log_probability, noise_and_goal, rollouts

RIDGE = 1e-5  # of the baseline of arXiv 1604.06778, which 1703.03400 uses


def policy_loss(
    apply: Apply, environment: Environment, horizon: int, *, discount: float, gae_lambda: float, dice_lambda: float
) -> LossFn:
    """Minus the mean return of rollouts by the parameters.

    Its gradient is minus the policy gradient: the mean over all steps of grad log pi(a) A, with standardised advantages
    A (`advantages`). Higher derivatives include the change of the rollouts. Baselines are constant, and so are the mean
    and the deviation that standardise advantages. Otherwise the result would be the gradient of no function.

    Args:
        apply: the policy, as for `rollouts`.
        environment: the environment of the policy.
        horizon: steps of an episode.
        discount: of the rewards.
        gae_lambda: of the advantages.
        dice_lambda: how far back higher derivatives look. 1 is exact, less has a smaller variance, and 0 is the
            low-variance curvature of arXiv 1810.06784.

    Returns:
        (params, batch) -> scalar. ``batch.x`` is noise [n * horizon, actions], ``batch.y`` the goal, in every row.
    """

    def loss(params: Params, batch: Batch) -> Tensor:
        seen = rollouts(apply, params, environment, *noise_and_goal(batch, horizon))
        advantage = advantages(seen, discount, gae_lambda)
        output = apply(params, seen.states.flatten(0, 1))
        log_p = log_probability(output, seen.actions.flatten(0, 1)).view_as(seen.weights) * seen.weights
        surrogate = (loaded_dice(log_p, dice_lambda) * advantage).sum() / seen.weights.sum()
        return -seen.rewards.sum(1).mean() - surrogate

    return loss


def loaded_dice(log_p: Tensor, dice_lambda: float) -> Tensor:
    """The weight of each action's advantage, with value 0, by Loaded DiCE (arXiv 1909.10549, section 4).

    f(w_t) - f(v_t), with w_t = sum over t' <= t of lambda^(t - t') log pi(a_t'), v_t the same without t' = t, and
    f(x) = exp(x - stop(x)).
    """
    w = log_p @ powers(dice_lambda, log_p).mT
    v = w - log_p
    return (w - w.detach()).exp() - (v - v.detach()).exp()


def mean_return(apply: Apply, environment: Environment, horizon: int) -> MetricFn:
    """Make a metric: (params, task) -> the mean undiscounted return of the query set's rollouts."""

    def metric_fn(params: Params, task: Task) -> Tensor:
        seen = rollouts(apply, params, environment, *noise_and_goal(task.query, horizon))
        return seen.rewards.sum(1).mean()

    return metric_fn


def advantages(seen: Rollouts, discount: float, gae_lambda: float) -> Tensor:
    """Generalised advantages (arXiv 1506.02438, equation 16), mean 0 and deviation 1 over a task's steps: [n, horizon].

    The baseline is linear in the state, its square and powers of the time, and fitted to these rollouts.
    """
    values = fitted_values(seen, discounted(seen.rewards, discount))
    after = torch.cat([values[:, 1:] * seen.weights[:, 1:], torch.zeros_like(values[:, :1])], 1)
    deltas = (seen.rewards + discount * after - values) * seen.weights
    found = discounted(deltas, discount * gae_lambda)
    steps = seen.weights.sum()
    centred = (found - (found * seen.weights).sum() / steps) * seen.weights
    return centred / ((centred.square().sum() / steps).sqrt() + 1e-8)


def discounted(x: Tensor, rate: float) -> Tensor:
    """Compute sum over k of rate^k x[t + k] for each t; x [n, horizon]."""
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
