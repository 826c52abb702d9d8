"""The inner loop: from the meta-parameters theta to a task's parameters phi (arXiv 1703.03400, equation 1)."""

from typing import Any

from torch.func import grad

from .tree import detach, map_leaves
from .types import Batch, LossFn, Params


def descend(params: Params, grads: Params, lr: Any) -> Params:
    """params - lr * grads; ``lr`` is a number, a scalar tensor, or one of either for each name."""
    if isinstance(lr, dict):
        return map_leaves(lambda p, g, a: p - a * g, params, grads, lr)
    return map_leaves(lambda p, g: p - lr * g, params, grads)


def inner_update(loss_fn: LossFn, params: Params, batch: Batch, lr: Any, *, first_order: bool = False) -> Params:
    """One step, phi' = phi - alpha * grad L(phi, D^tr).

    ``first_order`` takes the gradient as a constant: nothing is differentiated twice (FOMAML), nor recorded for it.
    """
    grads = grad(loss_fn)(detach(params) if first_order else params, batch)
    return descend(params, grads, lr)


def trajectory(
    loss_fn: LossFn, params: Params, support: Batch, lr: Any, *, steps: int, first_order: bool = False
) -> list[Params]:
    """[phi_0, phi_1, .., phi_steps] with phi_0 = theta, each one inner step after the one before it."""
    phis = [params]
    for _ in range(steps):
        phis.append(inner_update(loss_fn, phis[-1], support, lr, first_order=first_order))
    return phis


def adapt(loss_fn: LossFn, params: Params, support: Batch, lr: Any, *, steps: int, first_order: bool = False) -> Params:
    """theta -> phi: the last of the `trajectory`."""
    return trajectory(loss_fn, params, support, lr, steps=steps, first_order=first_order)[-1]
