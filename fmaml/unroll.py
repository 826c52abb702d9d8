"""Algorithms that differentiate through their inner steps: MAML, and those that differ from it in one function.

They share the walk phi_0 .. phi_K and the query loss at its end. They differ in what theta holds (``init``), where the
walk begins (``start``), which rule takes its steps (``rule``) and which parameters it changes (``only``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from .inner import EVERYTHING, adapt, trajectory
from .inner_rules import as_rule
from .optim.optimizers import rule_named
from .optim.transforms import chain
from .outer import query_loss
from .remat import recomputed_query_loss
from .setting_types import Rule
from .types import Algorithm, Batch, InnerRate, LossFn, Optimizer, Params, ThetaT


def theta_itself(theta: Params, support: Batch) -> Params:
    """The start of an algorithm whose theta is the parameters: phi_0 = theta."""
    return theta


class WithParams(TypedDict):
    """A theta that holds other tensors beside the parameters."""

    params: Params


def its_params(theta: WithParams, support: Batch) -> Params:
    """The start of an algorithm whose theta holds more: phi_0 = theta["params"]."""
    return theta["params"]


def stepping(inner: Rule, lr: InnerRate) -> Optimizer:
    """The rule of an inner step: transform the gradient by the rule named ``inner``, then descend by ``lr``."""
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
    """The algorithm with phi_0 = start(theta, D^tr), ``steps`` inner steps by rule(theta), and the loss L(phi_K, D^ts).

    ``rule(theta)`` is anything that ``lr`` may be in `fmaml.inner`. ``remat`` runs each inner step again for its
    derivative instead of keeping its graph, which first order does not have. The loss can then be differentiated only
    once, and only with respect to theta.
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
