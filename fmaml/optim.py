"""Pure optimizers: ``init(theta) -> state`` and ``update(grads, state, theta) -> (theta, state)``.

Only `sgd` ever takes a step. Everything else maps gradients (a `Transform`) and stands before it in a `chain`: Adam is
``chain(scale_by_adam(), sgd(lr))``. All of it is differentiable, so the same optimizers serve the inner loop.
A learning rate is a number, a tensor, or a schedule: a function of the number of steps taken so far (a scalar tensor).
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .ranges import Count, Decay, Natural, NonNegative, Rate, Rule
from .tree import global_norm, leaves, map_leaves, sqrt, zeros_like
from .types import Optimizer, Theta, Transform

Schedule = Callable[[Tensor], Tensor]


def sgd(lr: Rate | Schedule) -> Optimizer:
    """theta - lr * grads."""

    def update(grads: Theta, count: Tensor, theta: Theta) -> tuple[Theta, Tensor]:
        rate = lr(count) if callable(lr) else lr
        return map_leaves(lambda p, g: (p - rate * g).to(p.dtype), theta, grads), count + 1

    return Optimizer(_count, update)


def momentum(lr: Rate | Schedule, *, decay: Decay = 0.9, nesterov: bool = False) -> Optimizer:
    """SGD with heavy-ball (or Nesterov) momentum, as in torch.optim.SGD without dampening."""
    return chain(trace(decay, nesterov=nesterov), sgd(lr))


def adam(lr: Rate | Schedule, *, betas: tuple[Decay, Decay] = (0.9, 0.999), eps: Rate = 1e-8) -> Optimizer:
    """Adam (arXiv 1412.6980, algorithm 1)."""
    return chain(scale_by_adam(betas, eps), sgd(lr))


def adamw(
    lr: Rate | Schedule,
    *,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2)."""
    return chain(scale_by_adam(betas, eps), add_decayed(weight_decay), sgd(lr))


def chain(*parts: Transform | Optimizer) -> Any:
    """Each part's gradients go to the next; a chain that ends in an optimizer is one, else it is a transform."""
    if not parts:
        raise ValueError("chain: no parts; give transforms, and last an optimizer such as sgd(lr)")
    *before, last = parts
    if any(isinstance(part, Optimizer) for part in before):
        raise ValueError("chain: an optimizer takes the step, so it comes last, after every transform")

    def init(theta: Theta) -> tuple:
        return tuple(part.init(theta) for part in parts)

    def update(grads: Theta, states: tuple, theta: Theta) -> tuple[Theta, tuple]:
        after = []
        for part, state in zip(parts, states, strict=True):
            grads, state = part.update(grads, state, theta)
            after.append(state)
        return grads, tuple(after)

    return type(last)(init, update)


def clip_by_global_norm(max_norm: Rate) -> Transform:
    """Scale the gradients down to ``max_norm`` where their Euclidean norm, all leaves together, exceeds it."""

    def update(grads: Theta, state: tuple, theta: Theta) -> tuple[Theta, tuple]:
        scale = max_norm / global_norm(grads).clamp(min=max_norm)
        return map_leaves(lambda g: g * scale, grads), state

    return Transform(_nothing, update)


def add_decayed(weight_decay: NonNegative) -> Transform:
    """grads + weight_decay * theta."""

    def update(grads: Theta, state: tuple, theta: Theta) -> tuple[Theta, tuple]:
        return map_leaves(lambda g, p: g + weight_decay * p, grads, theta), state

    return Transform(_nothing, update)


def trace(decay: Decay, *, nesterov: bool = False) -> Transform:
    """The running sum v' = decay * v + g; Nesterov gives g + decay * v'."""

    def update(grads: Theta, velocity: Theta, theta: Theta) -> tuple[Theta, Theta]:
        velocity = map_leaves(lambda v, g: decay * v + g, velocity, grads)
        ahead = map_leaves(lambda v, g: g + decay * v, velocity, grads) if nesterov else velocity
        return ahead, velocity

    return Transform(zeros_like, update)


def scale_by_adam(betas: tuple[Decay, Decay], eps: Rate) -> Transform:
    """m_hat / (sqrt(v_hat) + eps), with the bias-corrected running means of the gradient and of its square."""
    b1, b2 = betas

    def init(theta: Theta) -> dict[str, Any]:
        return {"count": _count(theta), "mean": zeros_like(theta), "square": zeros_like(theta)}

    def update(grads: Theta, state: dict[str, Any], theta: Theta) -> tuple[Theta, dict[str, Any]]:
        count = state["count"] + 1
        mean = map_leaves(lambda m, g: b1 * m + (1 - b1) * g, state["mean"], grads)
        square = map_leaves(lambda v, g: b2 * v + (1 - b2) * g * g, state["square"], grads)
        debias1, debias2 = 1 - b1**count, 1 - b2**count
        scaled = map_leaves(lambda m, v: (m / debias1) / (sqrt(v / debias2) + eps), mean, square)
        return scaled, {"count": count, "mean": mean, "square": square}

    return Transform(init, update)


def rule(name: Rule) -> tuple[Transform, ...]:
    """What stands before the step in a chain, by its name; RMSprop is Adam without a mean, as Reptile uses it."""
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
    """A linear rise over ``warmup`` steps, then half a cosine from ``lr`` down to ``final`` at ``steps``."""
    if warmup >= steps:
        raise ValueError(f"cosine: warmup = {warmup} must be less than steps = {steps}")

    def schedule(count: Tensor) -> Tensor:
        done = ((count - warmup) / (steps - warmup)).clamp(0, 1)
        fall = final + (lr - final) * 0.5 * (1 + torch.cos(math.pi * done))
        return torch.where(count < warmup, lr * (count + 1) / warmup, fall) if warmup else fall

    return schedule


def _count(theta: Theta) -> Tensor:
    """Steps taken so far; float64 because the bias corrections of Adam lose digits in float32."""
    if not (tensors := leaves(theta)):
        raise ValueError("theta has no tensors: nothing could be learnt; give the parameters of a model")
    return torch.zeros((), dtype=torch.float64, device=tensors[0].device)


def _nothing(theta: Theta) -> tuple:
    return ()
