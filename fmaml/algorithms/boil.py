"""BOIL (Oh, Yoo, Kim and Yun, arXiv 2008.08882): the body only, in the inner loop.

Inner step:    phi_body = body - alpha * grad_body L(theta, D_i^tr), ``steps`` times; phi_head = head
"""

from ..ranges import Natural, Rate, Rule
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import stepping, unrolled


def boil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("conv*", "norm*"),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """Adapt all but the head, so that the representation itself must change from task to task.

    ``only`` are patterns of the body's names.
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
