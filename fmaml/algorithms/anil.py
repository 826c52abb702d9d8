"""ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv 1909.09157): almost no inner loop.

Section 4.1:    phi_head = head - alpha * grad_head L(theta, D_i^tr), ``steps`` times; phi_body = body
"""

from functools import partial

from ..inner import trajectory
from ..outer import query_loss
from ..ranges import Natural, Rate
from ..types import Algorithm, Batch, LossFn, Optimizer, Params


def anil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("head.*",),
) -> Algorithm:
    """Adapt the head alone; the body is shared by all tasks and learnt in the outer loop.

    ``only`` are patterns of the head's names: ("layer3.*",) for an `fmaml.mlp` of two hidden layers.
    """

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, inner_lr, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    return Algorithm(dict, adapt, partial(query_loss, loss_fn, adapt), phis)
