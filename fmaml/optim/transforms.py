"""Maps of gradients, and `chain`, which puts them before an optimizer."""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from typing import TypedDict, overload

import torch
from torch import Tensor

from ..setting_types import Decay, NonNegative, Rate
from ..tree import global_norm, leaves, sqrt, zeros_like
from ..types import Optimizer, OptState, Theta, Transform
from .elementwise import elementwise


@overload
def chain(*parts: *tuple[*tuple[Transform, ...], Optimizer]) -> Optimizer: ...
@overload
def chain(*parts: Transform) -> Transform: ...
def chain(*parts: Transform | Optimizer) -> Transform | Optimizer:
    """Apply transforms one after the other, then an optimizer: each part passes its gradients to the next.

    Args:
        parts: any number of transforms, then an optimizer; without an optimizer the chain is itself a transform.

    Returns:
        An optimizer if the last part is one, else a transform; its state is the tuple of the parts' states.

    Raises:
        ValueError: there are no parts, or an optimizer is not the last one.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.sgd(0.5)), {"p": torch.tensor(1.0)}
    >>> optimizer.step({"p": torch.tensor(7.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.5000)}
    """
    if not parts:
        raise ValueError("chain: no parts; give transforms, and last an optimizer such as sgd(lr)")
    *before, last = parts
    if any(isinstance(part, Optimizer) for part in before):
        raise ValueError("chain: an optimizer takes the step; put it last, after all transforms")

    def init(theta: Theta) -> tuple[OptState, ...]:
        return tuple(part.init(theta) for part in parts)

    def apply(grads: Theta, states: tuple[OptState, ...], theta: Theta) -> tuple[Theta, tuple[OptState, ...]]:
        after: list[OptState] = []
        for part, state in zip(parts, states, strict=True):
            grads, state = (part.step if isinstance(part, Optimizer) else part.update)(grads, state, theta)
            after.append(state)
        return grads, tuple(after)

    return type(last)(init, apply)


def clip_by_global_norm(max_norm: Rate) -> Transform:
    """Scale the gradients down to ``max_norm`` if their Euclidean norm, over all leaves, exceeds it.

    Args:
        max_norm: the largest norm, above 0.

    Returns:
        A transform without state, for `chain`.

    >>> import torch, fmaml
    >>> clip = fmaml.clip_by_global_norm(1.0)
    >>> clip.update({"p": torch.tensor([3.0, 4.0])}, (), {"p": torch.zeros(2)})[0]
    {'p': tensor([0.6000, 0.8000])}
    """

    def update(grads: Theta, state: tuple[()], theta: Theta) -> tuple[Theta, tuple[()]]:
        scale = max_norm / global_norm(grads).clamp(min=max_norm)
        return elementwise(lambda g: g * scale, grads), state

    return Transform(no_state, update)


def add_decayed(weight_decay: NonNegative) -> Transform:
    """The transform to grads + weight_decay * theta."""

    def update(grads: Theta, state: tuple[()], theta: Theta) -> tuple[Theta, tuple[()]]:
        return elementwise(lambda g, p: g + weight_decay * p, grads, theta), state

    return Transform(no_state, update)


def trace(decay: Decay, *, nesterov: bool = False) -> Transform:
    """The transform to the velocity, v' = decay * v + g; with Nesterov to g + decay * v'."""

    def update(grads: Theta, velocity: Theta, theta: Theta) -> tuple[Theta, Theta]:
        velocity = elementwise(lambda v, g: decay * v + g, velocity, grads)
        ahead = elementwise(lambda v, g: g + decay * v, velocity, grads) if nesterov else velocity
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
        return {"count": zero_count(theta), "mean": zeros_like(theta), "square": zeros_like(theta)}

    def update(grads: Theta, state: AdamState, theta: Theta) -> tuple[Theta, AdamState]:
        count = state["count"] + 1
        mean = elementwise(lambda m, g: b1 * m + (1 - b1) * g, state["mean"], grads)
        square = elementwise(lambda v, g: b2 * v + (1 - b2) * g * g, state["square"], grads)
        debias1, debias2 = 1 - b1**count, 1 - b2**count
        scaled = elementwise(lambda m, v: (m / debias1) / (sqrt(v / debias2) + eps), mean, square)
        return scaled, {"count": count, "mean": mean, "square": square}

    return Transform(init, update)


def zero_count(theta: Theta) -> Tensor:
    """The initial number of steps taken, 0; float64, because Adam's bias corrections lose digits in float32."""
    if not (tensors := leaves(theta)):
        raise ValueError("theta has no tensors: nothing to learn; give the parameters of a model")
    return torch.zeros((), dtype=torch.float64, device=tensors[0].device)


def no_state(theta: Theta) -> tuple[()]:
    """The ``init`` of a transform or an optimizer without state."""
    return ()
