"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), and FOMAML by ``first_order``.

Section 2.2, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
the meta-objective:              min over theta of sum_i L(phi_i, D_i^ts)
"""

from ..ranges import Natural, Rate
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import unrolled


def maml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    remat: bool = False,
) -> Algorithm:
    """Learn an initialisation theta from which a few gradient steps fit a new task.

    ``only`` the parameters named like one of these patterns are adapted. ``inner_lr`` may be any optimizer, such as
    ``fmaml.momentum(0.1)``. ``remat`` runs each inner step again for its derivative, instead of keeping its graph.
    """
    return unrolled(loss_fn, lambda theta: inner_lr, steps=steps, first_order=first_order, only=only, remat=remat)
