"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), and FOMAML by ``first_order``.

Equation 1, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
Equation 2, the outer loop:    min over theta of sum_i L(phi_i, D_i^ts)
"""

from functools import partial

from ..inner import trajectory
from ..outer import query_loss
from ..ranges import Natural, Rate
from ..types import Algorithm, Batch, LossFn, Optimizer, Params


def maml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
) -> Algorithm:
    """Learn an initialisation theta from which a few gradient steps fit a new task.

    ``only`` the parameters named like one of these patterns are adapted. ``inner_lr`` may be any optimizer, such as
    ``fmaml.momentum(0.1)``.
    """

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, inner_lr, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    return Algorithm(dict, adapt, partial(query_loss, loss_fn, adapt), phis)
