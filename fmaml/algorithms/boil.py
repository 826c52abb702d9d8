"""BOIL (Oh, Yoo, Kim and Yun, arXiv 2008.08882): the body only, in the inner loop.

Inner step:    phi_body = body - alpha * grad_body L(theta, D_i^tr), ``steps`` times; phi_head = head
"""

from ..ranges import Natural, Rate
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import unrolled


def boil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("conv*", "norm*"),
    remat: bool = False,
) -> Algorithm:
    """Adapt all but the head, so that the representation itself must change from task to task.

    ``only`` are patterns of the body's names.
    """
    return unrolled(loss_fn, lambda theta: inner_lr, steps=steps, first_order=first_order, only=only, remat=remat)
