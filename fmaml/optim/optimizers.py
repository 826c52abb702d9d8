"""Pure optimizers: ``init(theta) -> state`` and ``update(grads, state, theta) -> (theta, state)``.

Only `sgd` takes a step. All others put a map of gradients (a `Transform`) before it in a `chain`: Adam is
``chain(scale_by_adam(..), sgd(lr))``. All are differentiable, so they also work in the inner loop. A learning rate is a
number, a tensor, or a schedule: a function of the number of steps taken so far (a scalar tensor).
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..setting_types import Count, Decay, Natural, NonNegative, Rate, Rule
from ..tree import map_leaves
from ..types import Optimizer, Theta, Transform
from .elementwise import elementwise
from .transforms import add_decayed, chain, scale_by_adam, trace, zero_count

Schedule: TypeAlias = Callable[[Tensor], Tensor]


def sgd(lr: Rate | Schedule) -> Optimizer:
    """Stochastic gradient descent: theta - lr * grads.

    Args:
        lr: the learning rate, a number above 0 or a schedule such as `cosine`.

    Returns:
        An optimizer; its state is the number of steps taken.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.sgd(0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.step({"p": torch.tensor(2.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.)}
    """

    def step(grads: Theta, count: Tensor, theta: Theta) -> tuple[Theta, Tensor]:
        rate = lr(count) if callable(lr) else lr
        return elementwise(lambda p, g: (p - rate * g).to(p.dtype), theta, grads), count + 1

    return Optimizer(zero_count, step)


def momentum(lr: Rate | Schedule, *, decay: Decay = 0.9, nesterov: bool = False) -> Optimizer:
    """SGD with heavy-ball or Nesterov momentum, as in torch.optim.SGD without dampening.

    Args:
        lr: the learning rate, a number above 0 or a schedule.
        decay: the fraction of the velocity kept at each step, from 0 to below 1.
        nesterov: step along grads + decay * velocity instead of along the velocity.

    Returns:
        An optimizer; its state is the velocity, of theta's tree, and the number of steps taken.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.momentum(1.0, decay=0.5), {"p": torch.tensor(0.0)}
    >>> state, grads = optimizer.init(theta), {"p": torch.tensor(1.0)}
    >>> for _ in range(2):  # velocities 1 and 1.5
    ...     theta, state = optimizer.step(grads, state, theta)
    >>> theta
    {'p': tensor(-2.5000)}
    """
    return chain(trace(decay, nesterov=nesterov), sgd(lr))


def adam(lr: Rate | Schedule, *, betas: tuple[Decay, Decay] = (0.9, 0.999), eps: Rate = 1e-8) -> Optimizer:
    """Adam: step along the running mean of the gradient, divided by the root of the running mean of its square.

    Args:
        lr: the learning rate, a number above 0 or a schedule.
        betas: the fractions of both running means kept at each step.
        eps: added to the root of the second mean.

    Returns:
        An optimizer; its state is both means, of theta's tree, and the number of steps taken.

    Source: arXiv 1412.6980, algorithm 1.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.adam(0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.step({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]  # the first step is lr long
    {'p': tensor(0.5000)}
    """
    return chain(scale_by_adam(betas, eps), sgd(lr))


def adamw(
    lr: Rate | Schedule,
    *,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay.

    Args:
        lr: the learning rate, a number above 0 or a schedule.
        betas: the fractions of both running means kept at each step, as in `adam`.
        eps: added to the root of the second mean.
        weight_decay: each step subtracts lr * weight_decay * theta.

    Returns:
        An optimizer with the state of `adam`.

    Source: arXiv 1711.05101, algorithm 2. As in torch the decay is multiplied by the whole rate, in the paper only by
    the schedule.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.adamw(0.5, weight_decay=0.1), {"p": torch.tensor(1.0)}
    >>> optimizer.step({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.4500)}
    """
    return chain(scale_by_adam(betas, eps), add_decayed(weight_decay), sgd(lr))


def rule_named(name: Rule) -> tuple[Transform, ...]:
    """The transforms of a rule, to put before a step in a chain; ValueError if there is no such rule.

    "rmsprop" is Adam without the mean of the gradient, as in Reptile.
    """
    rules: dict[str, tuple[Transform, ...]] = {
        "sgd": (),
        "momentum": (trace(0.9),),
        "adam": (scale_by_adam((0.9, 0.999), 1e-8),),
        "rmsprop": (scale_by_adam((0.0, 0.999), 1e-8),),
    }
    if name not in rules:
        raise ValueError(f"inner = {name!r}: must be one of {', '.join(rules)}; or give an optimizer for inner_lr")
    return rules[name]


def cosine(lr: Rate, steps: Count, *, warmup: Natural = 0, final: NonNegative = 0.0) -> Schedule:
    """A linear rise over ``warmup`` steps, then half a cosine from ``lr`` down to ``final`` at ``steps``.

    Args:
        lr: the highest rate.
        steps: the first step with the rate ``final``.
        warmup: the number of steps of the rise, fewer than ``steps``.
        final: the rate at the end.

    Returns:
        A schedule: the number of steps taken so far, a scalar tensor -> the rate, a scalar tensor.

    Raises:
        ValueError: ``warmup`` is not less than ``steps``.

    Source: arXiv 1608.03983, without restarts.

    >>> import torch, fmaml
    >>> schedule = fmaml.cosine(1.0, 4)
    >>> [round(float(schedule(torch.tensor(step))), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if warmup >= steps:
        raise ValueError(f"cosine: warmup = {warmup} must be less than steps = {steps}")

    def schedule(count: Tensor) -> Tensor:
        done = ((count - warmup) / (steps - warmup)).clamp(0, 1)
        fall = final + (lr - final) * 0.5 * (1 + torch.cos(math.pi * done))
        return torch.where(count < warmup, lr * (count + 1) / warmup, fall) if warmup else fall

    return schedule


class AverageState(NamedTuple):
    """The state of an optimizer, and the average of theta."""

    inner: Any
    average: Any  # of theta's tree
    weights: Tensor  # the sum of the thetas' weights, relative to that of the last


def average_params(optimizer: Optimizer, decay: Decay = 0.999) -> Optimizer:
    """Add an exponential moving average of theta to an optimizer: ``state.opt_state.average``.

    Args:
        optimizer: any outer optimizer.
        decay: the fraction of the average kept at each step, from 0 to below 1.

    Returns:
        An optimizer with the same steps. The average is over the results of all steps, without the initial theta. The
        theta of k steps ago has the weight decay^k.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.average_params(fmaml.sgd(1.0), decay=0.5), {"p": torch.tensor(1.0)}
    >>> theta, state = optimizer.step({"p": torch.tensor(1.0)}, optimizer.init(theta), theta)
    >>> theta, state.average
    ({'p': tensor(0.)}, {'p': tensor(0.)})
    >>> theta, state = optimizer.step({"p": torch.tensor(3.0)}, state, theta)
    >>> theta, state.average
    ({'p': tensor(-3.)}, {'p': tensor(-2.)})
    """

    def init(theta: Theta) -> AverageState:
        return AverageState(optimizer.init(theta), map_leaves(torch.clone, theta), zero_count(theta))

    def step(grads: Theta, state: AverageState, theta: Theta) -> tuple[Theta, AverageState]:
        theta, inner = optimizer.step(grads, state.inner, theta)
        weights = 1 + decay * state.weights
        average = map_leaves(lambda mean, p: torch.lerp(mean, p, (1 / weights).to(p.dtype)), state.average, theta)
        return theta, AverageState(inner, average, weights)

    return Optimizer(init, step)
