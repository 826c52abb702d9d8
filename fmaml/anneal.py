"""Losses that change while theta is learnt, each a map of algorithms: they combine with any, and with each other.

What is judged and reported, `adapt` and `trajectory`, stays that of the algorithm; only its loss depends on the step.
"""

from .outer import at
from .types import Algorithm, LossFn, Task, Theta


def first_then(early: Algorithm, late: Algorithm, *, until: int) -> Algorithm:
    """The loss of ``early`` before the meta-step ``until``, of ``late`` from then on; both learn the same theta.

    First order, then second (arXiv 1810.09502, derivative-order annealing):
    ``first_then(maml(..., first_order=True), maml(...), until=1000)``.
    """

    if until == 0:
        return late
    return late._replace(at=lambda step: at(early if step < until else late, step))


def multi_step(algorithm: Algorithm, loss_fn: LossFn, *, until: int) -> Algorithm:
    """Before ``until`` the loss is sum_k w_k L(phi_k, D^ts), k = 1 .. K, in place of L(phi_K, D^ts).

    arXiv 1810.09502, multi-step loss: w_k = 1/K at first, and falls linearly to 0 for all k but the last,
    whose weight rises to 1. All phi_k are differentiated through, whatever the algorithm itself does, so this is for
    those that unroll their inner steps; their ``remat`` saves nothing while it is on. Raises ValueError if the
    algorithm has no trajectory.
    """
    if algorithm.trajectory is None:
        raise ValueError("multi_step: this algorithm takes no inner steps, so there is no loss after each of them")

    if until == 0:
        return algorithm

    def loss_at(step: int) -> Algorithm:
        now = at(algorithm, step)
        phis = now.trajectory
        if step >= until or phis is None:
            return now

        def loss(theta: Theta, task: Task) -> tuple:
            losses = [loss_fn(phi, task.query) for phi in phis(theta, task.support)]
            *early, last = losses[1:] or losses
            share = (1 - step / until) / (len(early) + 1)
            weighted = sum((share * value for value in early), (1 - share * len(early)) * last)
            return weighted, {"query_loss": last}

        return now._replace(loss=loss)

    return algorithm._replace(at=loss_at)
