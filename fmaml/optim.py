"""Pure optimizers: ``init(theta) -> state`` and ``update(grads, state, theta) -> (theta, state)``.

Only `sgd` takes a step. All others map gradients (a `Transform`) and come before it in a `chain`: Adam is
``chain(scale_by_adam(..), sgd(lr))``. All are differentiable, so the same optimizers serve the inner loop.
A learning rate is a number, a tensor, or a schedule: a function of the number of steps taken so far (a scalar tensor).
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

import math
from collections.abc import Callable
from typing import TypeAlias, TypedDict, overload

import torch
from torch import Tensor

from .ranges import Count, Decay, Natural, NonNegative, Rate, Rule
from .tree import global_norm, leaves, map_leaves, sqrt, zeros_like
from .types import Optimizer, OptState, Theta, Transform

Schedule: TypeAlias = Callable[[Tensor], Tensor]


def sgd(lr: Rate | Schedule) -> Optimizer:
    """Stochastic gradient descent: theta - lr * grads.

    Args:
        lr: the learning rate, a number above 0 or a schedule such as `cosine`.

    Returns:
        An optimizer whose state is the number of steps taken.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.sgd(0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.update({"p": torch.tensor(2.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.)}
    """

    def update(grads: Theta, count: Tensor, theta: Theta) -> tuple[Theta, Tensor]:
        rate = lr(count) if callable(lr) else lr
        return map_leaves(lambda p, g: (p - rate * g).to(p.dtype), theta, grads), count + 1

    return Optimizer(_count, update)


def momentum(lr: Rate | Schedule, *, decay: Decay = 0.9, nesterov: bool = False) -> Optimizer:
    """SGD with heavy-ball (or Nesterov) momentum, as in torch.optim.SGD without dampening.

    Args:
        lr: the learning rate, a number above 0 or a schedule.
        decay: the fraction of the velocity that is kept at each step, from 0 to below 1.
        nesterov: step along grads + decay * velocity instead of along the velocity.

    Returns:
        An optimizer whose state is the velocity, of theta's tree, and the number of steps taken.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.momentum(1.0, decay=0.5), {"p": torch.tensor(0.0)}
    >>> state, grads = optimizer.init(theta), {"p": torch.tensor(1.0)}
    >>> for _ in range(2):  # velocities 1 and 1.5
    ...     theta, state = optimizer.update(grads, state, theta)
    >>> theta
    {'p': tensor(-2.5000)}
    """
    return chain(trace(decay, nesterov=nesterov), sgd(lr))


def adam(lr: Rate | Schedule, *, betas: tuple[Decay, Decay] = (0.9, 0.999), eps: Rate = 1e-8) -> Optimizer:
    """Adam: steps by the running mean of the gradient, over the root of that of its square.

    Args:
        lr: the learning rate, a number above 0 or a schedule.
        betas: how much of the running means of the gradient and of its square is kept at each step.
        eps: added to the root of the second mean.

    Returns:
        An optimizer whose state is both means, of theta's tree, and the number of steps taken.

    Source: arXiv 1412.6980, algorithm 1.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.adam(0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.update({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]  # the first step is lr long
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
        betas: how much of the running means of the gradient and of its square is kept at each step.
        eps: added to the root of the second mean.
        weight_decay: lr * weight_decay * theta is subtracted at each step.

    Returns:
        An optimizer with the state of `adam`.

    Source: arXiv 1711.05101, algorithm 2.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.adamw(0.5, weight_decay=0.1), {"p": torch.tensor(1.0)}
    >>> optimizer.update({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.4500)}
    """
    return chain(scale_by_adam(betas, eps), add_decayed(weight_decay), sgd(lr))


@overload
def chain(*parts: *tuple[*tuple[Transform, ...], Optimizer]) -> Optimizer: ...
@overload
def chain(*parts: Transform) -> Transform: ...
def chain(*parts: Transform | Optimizer) -> Transform | Optimizer:
    """Apply transforms one after the other, then an optimizer: each part's gradients go to the next.

    Args:
        parts: any number of transforms, then an optimizer; without one the chain is itself a transform.

    Returns:
        An optimizer if the last part is one, else a transform; its state is the tuple of the parts' states.

    Raises:
        ValueError: no parts, or an optimizer before the last place.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.sgd(0.5)), {"p": torch.tensor(1.0)}
    >>> optimizer.update({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.5000)}
    """
    if not parts:
        raise ValueError("chain: no parts; give transforms, and last an optimizer such as sgd(lr)")
    *before, last = parts
    if any(isinstance(part, Optimizer) for part in before):
        raise ValueError("chain: an optimizer takes the step, so it comes last, after every transform")

    def init(theta: Theta) -> tuple[OptState, ...]:
        return tuple(part.init(theta) for part in parts)

    def update(grads: Theta, states: tuple[OptState, ...], theta: Theta) -> tuple[Theta, tuple[OptState, ...]]:
        after: list[OptState] = []
        for part, state in zip(parts, states, strict=True):
            grads, state = part.update(grads, state, theta)
            after.append(state)
        return grads, tuple(after)

    return type(last)(init, update)


def clip_by_global_norm(max_norm: Rate) -> Transform:
    """Scale the gradients down to ``max_norm`` if their Euclidean norm, over all leaves, exceeds it.

    Args:
        max_norm: the largest norm that is left unchanged, above 0.

    Returns:
        A transform without state, for `chain`.

    >>> import torch, fmaml
    >>> clip = fmaml.clip_by_global_norm(1.0)
    >>> clip.update({"p": torch.tensor([3.0, 4.0])}, (), {"p": torch.zeros(2)})[0]
    {'p': tensor([0.6000, 0.8000])}
    """

    def update(grads: Theta, state: tuple[()], theta: Theta) -> tuple[Theta, tuple[()]]:
        scale = max_norm / global_norm(grads).clamp(min=max_norm)
        return map_leaves(lambda g: g * scale, grads), state

    return Transform(no_state, update)


def add_decayed(weight_decay: NonNegative) -> Transform:
    """The transform grads + weight_decay * theta."""

    def update(grads: Theta, state: tuple[()], theta: Theta) -> tuple[Theta, tuple[()]]:
        return map_leaves(lambda g, p: g + weight_decay * p, grads, theta), state

    return Transform(no_state, update)


def trace(decay: Decay, *, nesterov: bool = False) -> Transform:
    """The transform to the velocity, v' = decay * v + g; with Nesterov to g + decay * v'."""

    def update(grads: Theta, velocity: Theta, theta: Theta) -> tuple[Theta, Theta]:
        velocity = map_leaves(lambda v, g: decay * v + g, velocity, grads)
        ahead = map_leaves(lambda v, g: g + decay * v, velocity, grads) if nesterov else velocity
        return ahead, velocity

    return Transform(zeros_like, update)


class AdamState(TypedDict):
    """The number of steps taken, and the running means of the gradient and of its square."""

    count: Tensor
    mean: Theta
    square: Theta


def scale_by_adam(betas: tuple[Decay, Decay], eps: Rate) -> Transform:
    """The transform to m_hat / (sqrt(v_hat) + eps), the bias-corrected means of the gradient and of its square."""
    b1, b2 = betas

    def init(theta: Theta) -> AdamState:
        return {"count": _count(theta), "mean": zeros_like(theta), "square": zeros_like(theta)}

    def update(grads: Theta, state: AdamState, theta: Theta) -> tuple[Theta, AdamState]:
        count = state["count"] + 1
        mean = map_leaves(lambda m, g: b1 * m + (1 - b1) * g, state["mean"], grads)
        square = map_leaves(lambda v, g: b2 * v + (1 - b2) * g * g, state["square"], grads)
        debias1, debias2 = 1 - b1**count, 1 - b2**count
        scaled = map_leaves(lambda m, v: (m / debias1) / (sqrt(v / debias2) + eps), mean, square)
        return scaled, {"count": count, "mean": mean, "square": square}

    return Transform(init, update)


def rule_named(name: Rule) -> tuple[Transform, ...]:
    """The transforms of a rule, to be followed by a step in a chain; ValueError if there is no such rule.

    "rmsprop" is Adam without the mean of the gradient, as in Reptile.
    """
    rules: dict[str, tuple[Transform, ...]] = {
        "sgd": (),
        "momentum": (trace(0.9),),
        "adam": (scale_by_adam((0.9, 0.999), 1e-8),),
        "rmsprop": (scale_by_adam((0.0, 0.999), 1e-8),),
    }
    if name not in rules:
        raise ValueError(f"inner = {name!r}: one of {', '.join(rules)}; or give an optimizer for inner_lr")
    return rules[name]


def cosine(lr: Rate, steps: Count, *, warmup: Natural = 0, final: NonNegative = 0.0) -> Schedule:
    """A linear rise over ``warmup`` steps, then half a cosine from ``lr`` down to ``final`` at ``steps``.

    Args:
        lr: the highest rate.
        steps: the step from which on the rate is ``final``.
        warmup: how many steps the rise takes, fewer than ``steps``.
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


def _count(theta: Theta) -> Tensor:
    """The initial number of steps taken, 0; float64, since Adam's bias corrections lose digits in float32."""
    if not (tensors := leaves(theta)):
        raise ValueError("theta has no tensors: nothing could be learnt; give the parameters of a model")
    return torch.zeros((), dtype=torch.float64, device=tensors[0].device)


def no_state(theta: Theta) -> tuple[()]:
    """The ``init`` of a transform or an optimizer without state."""
    return ()
