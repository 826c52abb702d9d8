"""ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv 1909.09157): almost no inner loop.

Inner step:    phi_head = head - alpha * grad_head L(theta, D_i^tr), ``steps`` times; phi_body = body
"""

from ..ranges import Natural, Rate
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import unrolled


def anil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("head.*",),
    remat: bool = False,
) -> Algorithm:
    """Adapt the head alone; the body is shared by all tasks and learnt in the outer loop.

    ``only`` are patterns of the head's names: ("layer3.*",) for an `fmaml.mlp` of two hidden layers.
    """
    return unrolled(loss_fn, lambda theta: inner_lr, steps=steps, first_order=first_order, only=only, remat=remat)
