"""Losses that change during training: each function here maps an algorithm to one whose loss depends on the step.

They combine with any algorithm and with each other. `adapt` and `trajectory`, which results are reported for, do not
change with the step.
"""

from torch import Tensor

from .outer import at_step
from .types import Algorithm, LossFn, Metrics, Task, ThetaT

LEAST_SHARE = 0.03  # of its first weight, for a step that is not the last: the value of the authors' code


def first_then(early: Algorithm[ThetaT], late: Algorithm[ThetaT], *, until: int) -> Algorithm[ThetaT]:
    """The loss of one algorithm before a meta-step and of another from then on; both learn the same theta.

    Args:
        early: its loss is used before ``until``.
        late: its loss is used from ``until`` on, and its ``adapt`` and ``trajectory`` always.
        until: a meta-step, 0 or more.

    Returns:
        An algorithm whose loss depends on the meta-step.

    Source: arXiv 1810.09502, derivative-order annealing: first order, then second.

    >>> import fmaml
    >>> loss_fn = fmaml.supervised(fmaml.mlp(inputs=(1,), outputs=1).apply, fmaml.mse)
    >>> fomaml, maml = (fmaml.maml(loss_fn, inner_lr=0.01, steps=5, first_order=order) for order in (True, False))
    >>> annealed = fmaml.first_then(fomaml, maml, until=1000)
    >>> annealed.at(999).loss is fomaml.loss, annealed.at(1000).loss is maml.loss
    (True, True)
    """
    if until == 0:
        return late

    def at(step: int) -> Algorithm[ThetaT]:
        return at_step(early if step < until else late, step)

    return late._replace(at=at)


def multi_step(algorithm: Algorithm[ThetaT], loss_fn: LossFn, *, until: int) -> Algorithm[ThetaT]:
    """Before a meta-step, a weighted sum of the losses after every inner step, sum_k w_k L(phi_k, D^ts).

    The weights w_k are 1/K at first. Those of all steps but the last fall linearly, by 1/K in ``until`` meta-steps but
    no lower than 0.03/K; the last step has the rest. Every phi_k is differentiated through, whatever the algorithm
    itself does, so this is for algorithms that unroll their inner steps, and ``remat`` saves no memory until ``until``.

    Args:
        algorithm: an algorithm with inner steps.
        loss_fn: (params, batch) -> scalar.
        until: the meta-step from which on the algorithm's own loss is used.

    Returns:
        An algorithm whose loss depends on the meta-step.

    Raises:
        ValueError: the algorithm has no trajectory.

    Source: arXiv 1810.09502, multi-step loss optimisation.

    >>> import fmaml
    >>> loss_fn = fmaml.supervised(fmaml.mlp(inputs=(1,), outputs=1).apply, fmaml.mse)
    >>> maml = fmaml.maml(loss_fn, inner_lr=0.01, steps=5)
    >>> fmaml.multi_step(maml, loss_fn, until=1000).at(1000).loss is maml.loss
    True
    """
    if algorithm.trajectory is None:
        raise ValueError("multi_step: this algorithm takes no inner steps, so there is no loss after each of them")
    if until == 0:
        return algorithm

    def loss_at(step: int) -> Algorithm[ThetaT]:
        now = at_step(algorithm, step)
        phis = now.trajectory
        if step >= until or phis is None:
            return now

        def loss(theta: ThetaT, task: Task) -> tuple[Tensor, Metrics]:
            losses = [loss_fn(phi, task.query) for phi in phis(theta, task.support)]
            *early, last = losses[1:] or losses
            share = max(1 - step / until, LEAST_SHARE) / (len(early) + 1)
            weighted = sum((share * value for value in early), (1 - share * len(early)) * last)
            return weighted, {"query_loss": last}

        return now._replace(loss=loss)

    return algorithm._replace(at=loss_at)
