"""BOIL (Oh, Yoo, Kim and Yun, arXiv 2008.08882): the body only, in the inner loop.

Section 3:    phi_body = body - alpha * grad_body L(theta, D_i^tr), ``steps`` times; phi_head = head
"""

from functools import partial

from ..inner import trajectory
from ..outer import query_loss
from ..ranges import Natural, Rate
from ..types import Algorithm, Batch, LossFn, Optimizer, Params


def boil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("conv*", "norm*"),
) -> Algorithm:
    """Adapt all but the head, so that the representation itself must change from task to task.

    ``only`` are patterns of the body's names.
    """

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, inner_lr, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    return Algorithm(dict, adapt, partial(query_loss, loss_fn, adapt), phis)
