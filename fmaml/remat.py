"""The meta-gradient without keeping the inner loop's graph: each inner step is run again when its derivative is needed.

With phi_k+1 = u(theta, phi_k) the adjoint is lambda_K = grad L(phi_K, D^ts), lambda_k = (du/dphi_k)' lambda_k+1, and
the meta-gradient is the sum of (du/dtheta)' lambda_k+1 over the steps and of (dphi_0/dtheta)' lambda_0. Walking forward
keeps phi_0 .. phi_K alone; walking back takes one `vjp` of u a step. torch's own checkpointing does not work under
torch.func; this does, under vmap too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp

from .inner import EVERYTHING, descent, inner_grad, select, times
from .tree import add, detach, leaves, map_leaves
from .types import Batch, LossFn, Metrics, Params, Task, Theta


def query_loss_again(
    loss_fn: LossFn,
    start: Callable[[Theta, Batch], Params],
    rule: Callable[[Theta], Any],
    theta: Theta,
    task: Task,
    *,
    steps: int,
    only: Sequence[str] = EVERYTHING,
) -> tuple[Tensor, Metrics]:
    """The query loss, among the metrics too; its gradient with respect to theta, and to nothing else, is the true one.

    For that it is stop(L) + <stop(meta-gradient), theta - stop(theta)>.

    The walk begins at ``start(theta, D^tr)`` and is taken by ``rule(theta)``, learnt as far as it depends on theta.
    """

    def begin(theta: Theta) -> tuple:
        phi = start(theta, task.support)
        return phi, descent(rule(theta)).init(select(phi, only))

    def step(theta: Theta, carry: tuple) -> tuple:
        phi, state = carry
        moved = select(phi, only)
        moved, state = descent(rule(theta)).update(inner_grad(loss_fn, phi, moved, task.support, False), state, moved)
        return {**phi, **moved}, state

    def end(carry: tuple) -> Tensor:
        return loss_fn(carry[0], task.query)

    at = detach(theta)
    carries = [detach(begin(at))]
    for _ in times(steps, task.support):
        carries.append(detach(step(at, carries[-1])))

    adjoint, query = grad_and_value(end)(carries[-1])
    total = map_leaves(torch.zeros_like, at)
    for carry in reversed(carries[:-1]):
        direct, adjoint = vjp(step, at, carry)[1](adjoint)
        total = add(total, direct)
    total = detach(add(total, vjp(begin, at)[1](adjoint)[0]))
    products = leaves(map_leaves(lambda g, p, q: (g * (p - q)).sum(), total, theta, at))
    return detach(query) + torch.stack(products).sum(), {"query_loss": query}
