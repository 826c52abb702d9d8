"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), and FOMAML by ``first_order``.

Equation 1, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
Equation 2, the outer loop:    min over theta of sum_i L(phi_i, D_i^ts)
"""

from functools import partial

from ..inner import trajectory
from ..outer import query_loss
from ..ranges import Natural, Rate
from ..remat import query_loss_again
from ..types import Algorithm, Batch, LossFn, Optimizer, Params, Task


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

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, inner_lr, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    def loss_again(theta: Params, task: Task) -> tuple:
        return query_loss_again(loss_fn, theta, task, inner_lr, steps=steps, only=only)

    kept = partial(query_loss, loss_fn, adapt)
    return Algorithm(dict, adapt, loss_again if remat and not first_order else kept, phis)
