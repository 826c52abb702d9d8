"""Rematerialisation: a meta-gradient without the graph of the inner loop, by running each inner step again.

With phi_k+1 = u(theta, phi_k) the adjoint is lambda_K = grad L(phi_K, D^ts), lambda_k = (du/dphi_k)' lambda_k+1.
The meta-gradient is the sum of (du/dtheta)' lambda_k+1 over the steps, plus (dphi_0/dtheta)' lambda_0. The forward
pass keeps only phi_0 .. phi_K, or every sqrt(K)-th of many. The backward pass takes one `vjp` of u for each step.
Unlike torch's own checkpointing, this works under torch.func, including vmap.
"""

from __future__ import annotations  # torch.compile cannot trace list[...] in a signature within a function

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import accumulate
from typing import Any, TypeAlias

from torch import Tensor
from torch.func import grad_and_value, vjp

from .inner import EVERYTHING, begin, check_steps, inner_step, select
from .torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from .torch_fixes.loss_value import checked
from .tree import add
from .types import Batch, InnerRate, LossFn, Metrics, OptState, Params, Task, ThetaT

KEEP_ALL = 32  # steps; for 20, running parts again took 1.15 times as long and a sixth of the memory
Carry: TypeAlias = Any  # a tree of tensors that a step changes, such as phi_k with the state of the rule


def theta_itself(theta: Params, support: Batch) -> Params:
    """The start of an algorithm whose theta is the parameters: phi_0 = theta."""
    return theta


def recomputed_query_loss(
    loss_fn: LossFn,
    rule: Callable[[ThetaT], InnerRate],
    theta: ThetaT,
    task: Task,
    *,
    steps: int,
    start: Callable[[ThetaT, Batch], Params] = theta_itself,
    only: Sequence[str] = EVERYTHING,
) -> tuple[Tensor, Metrics]:
    """The query loss and the metrics; only the loss's gradient with respect to theta is correct.

    The loss is stop(L) + <stop(meta-gradient), theta - stop(theta)>.

    The inner steps begin at ``start(theta, D^tr)`` and follow ``rule(theta)``.
    """

    def first(theta: ThetaT) -> tuple[Params, OptState]:
        phi = start(theta, task.support)
        return phi, begin(phi, rule(theta), only)[1]

    def step(k: int, theta: ThetaT, carry: tuple[Params, OptState]) -> tuple[Params, OptState]:
        return inner_step(loss_fn, *carry, task.support, rule(theta), tuple(select(carry[0], only)))

    def last(theta: ThetaT, carry: tuple[Params, OptState]) -> Tensor:
        return checked(loss_fn, differentiated=True)(carry[0], task.query)

    loss, gradient = recomputed(first, step, last, theta, parts(steps), keep_last=True)
    return with_gradient(loss, gradient, theta), {"query_loss": loss}


def recomputed(
    first: Callable[[ThetaT], Carry],
    step: Callable[[int, ThetaT, Carry], Carry],
    last: Callable[[ThetaT, Carry], Tensor],
    theta: ThetaT,
    split: Sequence[range],
    keep_last: bool = False,
) -> tuple[Tensor, ThetaT]:
    """last(theta, carry_K) with carry_0 = first(theta), carry_k+1 = step(k, theta, carry_k); and its gradient.

    Args:
        first, step, last: pure functions; ``last`` returns a scalar.
        theta: the meta-parameters.
        split: the K steps in parts, as `parts` gives them. Only the first carry of a part is kept. One part at a time
            runs again; the last part need not.
        keep_last: keep the graph of the last step, which saves one of K repeated steps.

    Returns:
        The scalar and its gradient with respect to theta, as constants.
    """
    fixed = detach_theta(theta, "remat")
    kept = [detach_result(first(fixed), "remat")]
    *before, final = split or [range(0)]

    def run(carry: Carry, k: int) -> Carry:
        return detach_result(step(k, fixed, carry), "remat")

    for part in before:
        kept.append(reduce(run, part, kept[-1]))
    carries = list(accumulate(final[:-1], run, initial=kept.pop()))
    pull = None  # the adjoint of the next step, if its graph is kept
    if final and keep_last:
        carries[-1], pull, *_ = vjp(partial(step, final[-1]), fixed, carries[-1])
    elif final:
        carries.append(run(carries[-1], final[-1]))

    (total, adjoint), loss = grad_and_value(last, argnums=(0, 1))(fixed, detach_result(carries.pop(), "remat"))
    for part in reversed(split):
        for k in reversed(part):
            if pull is None:
                carries = carries or list(accumulate(part[:-1], run, initial=kept.pop()))
                pull = vjp(partial(step, k), fixed, carries.pop())[1]
            direct, adjoint = pull(adjoint)
            pull, total = None, add(total, direct)
    total = add(total, vjp(first, fixed)[1](adjoint)[0])
    return loss, total


def parts(steps: int, keep_all: int | None = None) -> list[range]:
    """The steps between stored states: parts of about sqrt(steps), or of 1 for at most ``keep_all`` steps."""
    check_steps(steps)
    length = 1 if steps <= (KEEP_ALL if keep_all is None else keep_all) else math.isqrt(steps)
    return [range(first, min(first + length, steps)) for first in range(0, steps, length)]
