"""Rematerialisation: the meta-gradient without the inner loop's graph, by running each inner step again.

With phi_k+1 = u(theta, phi_k) the adjoint is lambda_K = grad L(phi_K, D^ts), lambda_k = (du/dphi_k)' lambda_k+1.
The meta-gradient is the sum of (du/dtheta)' lambda_k+1 over the steps, plus (dphi_0/dtheta)' lambda_0. The forward
pass keeps only phi_0 .. phi_K, or every sqrt(K)-th of many. The backward pass takes one `vjp` of u for each step.
Unlike torch's own checkpointing, this works under torch.func, including vmap.
"""

from __future__ import annotations  # torch.compile cannot trace list[...] in a signature within a function

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor
from torch.func import vjp

from .inner import EVERYTHING, begin, check_steps, inner_step, select
from .torch_fixes.grad_levels import detach_result, detach_theta, grad_and_value, with_gradient
from .tree import add, zeros_like
from .types import Batch, InnerRate, LossFn, Metrics, OptState, Params, Task, ThetaT

KEEP_ALL = 32  # steps; for 20, running parts again took 1.15 times as long and a sixth of the memory
Carry: TypeAlias = tuple[Params, OptState]  # phi_k, and the state of the rule


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

    def first(theta: ThetaT) -> Carry:
        phi = start(theta, task.support)
        return phi, begin(phi, rule(theta), only)[1]

    fixed = detach_theta(theta, "remat")
    kept = [detach_result(first(fixed), "remat")]
    names = tuple(select(kept[0][0], only))

    def step(theta: ThetaT, carry: Carry) -> Carry:
        return inner_step(loss_fn, *carry, task.support, rule(theta), names)

    forward, lengths = partial(carries, partial(step, fixed)), parts(steps)
    for length in lengths:
        kept.append(forward(kept[-1], length)[-1])

    phi, state = kept.pop()
    gradient, query = grad_and_value(loss_fn)(phi, task.query)
    adjoint, total = (gradient, zeros_like(state)), zeros_like(fixed)
    for carry, length in reversed(list(zip(kept, lengths, strict=True))):
        for before in reversed(forward(carry, length - 1)):
            direct, adjoint = vjp(step, fixed, before)[1](adjoint)
            total = add(total, direct)
    total = add(total, vjp(first, fixed)[1](adjoint)[0])
    return with_gradient(query, total, theta), {"query_loss": query}


def carries(step: Callable[[Carry], Carry], carry: Carry, steps: int) -> list[Carry]:
    """The initial ``carry``, and the carry after each of ``steps`` steps."""
    found = [carry]
    for _ in range(steps):
        found.append(detach_result(step(found[-1]), "remat"))
    return found


def parts(steps: int) -> list[int]:
    """The lengths of the parts between stored states: about sqrt(steps), or 1 if ``steps`` is small."""
    check_steps(steps)
    length = 1 if steps <= KEEP_ALL else math.isqrt(steps)
    return [min(length, steps - first) for first in range(0, steps, length)]
