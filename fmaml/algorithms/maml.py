"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), and FOMAML by ``first_order``.

Section 2.2, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
the meta-objective:              min over theta of sum_i L(phi_i, D_i^ts)
"""

from ..ranges import Natural, Rate, Rule
from ..types import Algorithm, LossFn, Optimizer
from ..unroll import stepping, unrolled


def maml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """Learn an initialisation theta from which a few gradient steps fit a new task.

    ``only`` the parameters named like one of these patterns are adapted. ``inner`` is what the gradient passes through
    before a step of ``inner_lr``, which may be any optimizer instead, such as ``fmaml.momentum(0.1)``. ``remat`` runs
    each inner step again for its derivative, instead of keeping its graph; then theta alone can be differentiated.
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
