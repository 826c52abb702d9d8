"""Losses that change during training: each function returns an algorithm with a loss that depends on the meta-step.

They combine with any algorithm and with each other. `adapt` and `trajectory`, which give the reported results, do not
depend on the meta-step.
"""

from torch import Tensor

from .outer import at_step
from .types import Algorithm, LossFn, Metrics, Task, ThetaT

LEAST_SHARE = 0.03  # every step but the last keeps this share of its initial weight; value of the authors' code


def first_then(early: Algorithm[ThetaT], late: Algorithm[ThetaT], *, until: int) -> Algorithm[ThetaT]:
    """Use the loss of one algorithm before a meta-step and that of another afterwards; both learn the same theta.

    Args:
        early: the algorithm of the loss before ``until``.
        late: the algorithm of the loss from ``until`` on. Its ``adapt`` and ``trajectory`` are used throughout.
        until: the first meta-step of ``late``, 0 or more.

    Returns:
        An algorithm with a loss that depends on the meta-step.

    Source: arXiv 1810.09502, derivative-order annealing (first order, then second).

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
    """Use a weighted sum of the losses after every inner step, sum_k w_k L(phi_k, D^ts), until a meta-step.

    All K weights w_k start at 1/K. The weights of all steps but the last fall linearly, by 1/K in ``until`` meta-steps
    but no lower than 0.03/K. The last step has the remaining weight.

    The sum is differentiated through every phi_k, so the algorithm must unroll its inner steps. Until then ``remat``
    saves no memory.

    Args:
        algorithm: an algorithm with inner steps.
        loss_fn: (params, batch) -> scalar.
        until: the first meta-step with the algorithm's own loss.

    Returns:
        An algorithm with a loss that depends on the meta-step.

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
        raise ValueError("multi_step: this algorithm takes no inner steps; use one that does, such as maml")
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
