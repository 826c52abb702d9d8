"""The meta-gradient without keeping the inner loop's graph: each inner step is run again when its derivative is needed.

With phi_k+1 = u(phi_k) the adjoint is lambda_K = grad L(phi_K, D^ts), lambda_k = (du/dphi_k)' lambda_k+1, and the
meta-gradient is lambda_0. Walking forward keeps phi_0 .. phi_K alone; walking back takes one `vjp` of u a step. torch's
own checkpointing does not work under torch.func; this does, under vmap too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp

from .inner import EVERYTHING, descent, inner_grad, select, times
from .tree import add, detach, leaves, map_leaves
from .types import LossFn, Metrics, Params, Task


def query_loss_again(
    loss_fn: LossFn, theta: Params, task: Task, lr: Any, *, steps: int, only: Sequence[str] = EVERYTHING
) -> tuple[Tensor, Metrics]:
    """<stop(lambda_0), theta>, whose gradient is that of the query loss, and the query loss among the metrics.

    ``lr`` is a number, a tensor, a dict by name, or an `Optimizer`; it is not learnt here.
    """
    init, update = descent(lr)

    def begin(theta: Params) -> tuple:
        moved = select(theta, only)
        return moved, init(moved)

    def step(theta: Params, carry: tuple) -> tuple:
        moved, state = carry
        return update(inner_grad(loss_fn, theta, moved, task.support, False), state, moved)

    def end(theta: Params, carry: tuple) -> Tensor:
        return loss_fn({**theta, **carry[0]}, task.query)

    at = detach(theta)
    carries = [detach(begin(at))]
    for _ in times(steps, task.support):
        carries.append(detach(step(at, carries[-1])))

    (total, adjoint), query = grad_and_value(end, argnums=(0, 1))(at, carries[-1])
    for carry in reversed(carries[:-1]):
        direct, adjoint = vjp(step, at, carry)[1](adjoint)
        total = add(total, direct)
    total = detach(add(total, vjp(begin, at)[1](adjoint)[0]))
    products = leaves(map_leaves(lambda g, p: (g * p).sum(), total, theta))
    return torch.stack(products).sum(), {"query_loss": query}
