"""Algorithms that differentiate through their inner steps: MAML and all that differ from it in one function.

What they share is the walk phi_0 .. phi_K and the query loss at its end. What tells them apart: what theta holds
(``init``), where the walk begins (``start``), which rule takes its steps (``rule``), what it may move (``only``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .inner import EVERYTHING, descent, trajectory
from .optim import chain, rule
from .outer import query_loss
from .ranges import Rule
from .remat import query_loss_again
from .types import Algorithm, Batch, LossFn, Optimizer, Params, Theta


def theta_itself(theta: Theta, support: Batch) -> Params:
    return theta


def its_params(theta: Theta, support: Batch) -> Params:
    """The start where theta holds more than parameters."""
    return theta["params"]


def stepping(inner: Rule, lr: Any) -> Optimizer:
    """The rule of an inner step: what is called ``inner`` makes something of the gradient, then descent by ``lr``."""
    return chain(*rule(inner), descent(lr))


def unrolled(
    loss_fn: LossFn,
    rule: Callable[[Theta], Any],
    *,
    steps: int,
    init: Callable[[Params], Theta] = dict,
    start: Callable[[Theta, Batch], Params] = theta_itself,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
    remat: bool = False,
) -> Algorithm:
    """phi_0 = start(theta, D^tr), phi_K after ``steps`` inner steps by rule(theta), and the loss L(phi_K, D^ts).

    ``rule(theta)`` is whatever may stand for ``lr`` in `fmaml.inner`. ``remat`` runs each inner step again for its
    derivative, instead of keeping its graph; in first order there is none to keep. With it the loss can be
    differentiated with respect to theta alone, and once.
    """

    def phis(theta: Theta, support: Batch, steps: int = steps) -> list[Params]:
        phi = start(theta, support)
        return trajectory(loss_fn, phi, support, rule(theta), steps=steps, first_order=first_order, only=only)

    def adapt(theta: Theta, support: Batch) -> Params:
        return phis(theta, support)[-1]

    again = partial(query_loss_again, loss_fn, start, rule, steps=steps, only=only)
    kept = partial(query_loss, loss_fn, adapt)
    return Algorithm(init, adapt, again if remat and not first_order else kept, phis)
