"""The meta-gradient without keeping the inner loop's graph: each inner step is run again for its derivative.

With phi_k+1 = u(theta, phi_k) the adjoint is lambda_K = grad L(phi_K, D^ts), lambda_k = (du/dphi_k)' lambda_k+1, and
the meta-gradient is the sum of (du/dtheta)' lambda_k+1 over the steps and of (dphi_0/dtheta)' lambda_0. The
forward pass keeps only phi_0 .. phi_K, of many steps every sqrt(K)-th; the backward pass takes one `vjp` of u a step.
torch's own checkpointing does not work under torch.func; this works there, also under vmap.
"""

from __future__ import annotations  # torch.compile cannot trace list[...] in a signature within a function

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor
from torch.func import grad_and_value, vjp

from .inner import EVERYTHING, check_steps, inner_update, loss_of_part, select
from .inner_rules import as_rule
from .torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from .tree import add, zeros_like
from .types import Batch, InnerRate, LossFn, Metrics, OptState, Params, Task, ThetaT

KEEP_ALL = 32  # steps; of 20, walking again in parts took 1.15 times as long, for a sixth of the memory
Carry: TypeAlias = tuple[Params, OptState]  # phi_k, and the state of the rule


def recomputed_query_loss(
    loss_fn: LossFn,
    start: Callable[[ThetaT, Batch], Params],
    rule: Callable[[ThetaT], InnerRate],
    theta: ThetaT,
    task: Task,
    *,
    steps: int,
    only: Sequence[str] = EVERYTHING,
) -> tuple[Tensor, Metrics]:
    """The query loss and the metrics; the loss has the right gradient with respect to theta, and to nothing else.

    Its value is stop(L) + <stop(meta-gradient), theta - stop(theta)>.

    The walk begins at ``start(theta, D^tr)`` and its steps are those of ``rule(theta)``.
    """

    def begin(theta: ThetaT) -> Carry:
        phi = start(theta, task.support)
        return phi, as_rule(rule(theta)).init(select(phi, only))

    def step(theta: ThetaT, carry: Carry) -> Carry:
        phi, state = carry
        moved, state = inner_update(loss_of_part(loss_fn, phi), select(phi, only), task.support, rule(theta), state)
        return {**phi, **moved}, state

    def end(carry: Carry) -> Tensor:
        return loss_fn(carry[0], task.query)

    def walked(carry: Carry, steps: int) -> list[Carry]:
        """The carries before, between and after so many steps."""
        carries = [carry]
        for _ in range(steps):
            carries.append(detach_result(step(fixed, carries[-1]), "remat"))
        return carries

    fixed = detach_theta(theta, "remat")
    lengths = parts(steps)
    starts = [detach_result(begin(fixed), "remat")]
    for length in lengths:
        starts.append(walked(starts[-1], length)[-1])

    adjoint, query = grad_and_value(end)(starts.pop())
    total = zeros_like(fixed)
    for length in reversed(lengths):
        for carry in reversed(walked(starts.pop(), length - 1)):
            direct, adjoint = vjp(step, fixed, carry)[1](adjoint)
            total = add(total, direct)
    total = add(total, vjp(begin, fixed)[1](adjoint)[0])
    return with_gradient(query, total, theta), {"query_loss": query}


def parts(steps: int) -> list[int]:
    """The steps in parts of about sqrt(steps), whose starts are kept; single steps while these are few."""
    check_steps(steps)
    length = 1 if steps <= KEEP_ALL else math.isqrt(steps)
    return [min(length, steps - first) for first in range(0, steps, length)]
