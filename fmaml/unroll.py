"""Algorithms that differentiate through their inner steps: MAML and all that differ from it in one function.

What they share is the walk phi_0 .. phi_K and the query loss at its end. What tells them apart: what theta holds
(``init``), where the walk begins (``start``), which rule takes its steps (``rule``), what it may change (``only``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from .inner import EVERYTHING, adapt, as_rule, trajectory
from .optim import chain, rule_named
from .outer import query_loss
from .ranges import Rule
from .remat import recomputed_query_loss
from .types import Algorithm, Batch, InnerRate, LossFn, Optimizer, Params, ThetaT


def theta_itself(theta: Params, support: Batch) -> Params:
    """The start where theta is the parameters."""
    return theta


class WithParams(TypedDict):
    """A theta that holds more than parameters."""

    params: Params


def its_params(theta: WithParams, support: Batch) -> Params:
    """The start where theta holds more than parameters."""
    return theta["params"]


def stepping(inner: Rule, lr: InnerRate) -> Optimizer:
    """The rule of an inner step: the gradient goes through what is called ``inner``, then descent by ``lr``."""
    return chain(*rule_named(inner), as_rule(lr))


def unrolled(
    loss_fn: LossFn,
    rule: Callable[[ThetaT], InnerRate],
    *,
    steps: int,
    init: Callable[[Params], ThetaT] = dict,
    start: Callable[[ThetaT, Batch], Params] = theta_itself,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
    remat: bool = False,
) -> Algorithm[ThetaT]:
    """phi_0 = start(theta, D^tr), phi_K after ``steps`` inner steps by rule(theta), and the loss L(phi_K, D^ts).

    ``rule(theta)`` is whatever may stand for ``lr`` in `fmaml.inner`. ``remat`` runs each inner step again for its
    derivative, instead of keeping its graph; in first order there is none to keep. With it the loss can be
    differentiated with respect to theta alone, and once.
    """

    def phis(theta: ThetaT, support: Batch, steps: int = steps) -> list[Params]:
        params = start(theta, support)
        return trajectory(loss_fn, params, support, rule(theta), steps=steps, first_order=first_order, only=only)

    def phi(theta: ThetaT, support: Batch) -> Params:
        params = start(theta, support)
        return adapt(loss_fn, params, support, rule(theta), steps=steps, first_order=first_order, only=only)

    recomputed = partial(recomputed_query_loss, loss_fn, start, rule, steps=steps, only=only)
    kept = partial(query_loss, loss_fn, phi)
    return Algorithm(init, phi, recomputed if remat and not first_order else kept, phis)
