"""ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv 1909.09157): almost no inner loop.

Inner step:    phi_head = head - alpha * grad_head L(theta, D_i^tr), ``steps`` times; phi_body = body
"""

from ..ranges import Natural, Rate, Rule
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import stepping, unrolled


def anil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("head.*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """Adapt the head alone; the body is shared by all tasks and learnt in the outer loop.

    ``only`` are patterns of the head's names: ("layer3.*",) for an `fmaml.mlp` of two hidden layers.
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
