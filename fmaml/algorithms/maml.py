"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), and FOMAML with ``first_order``.

Section 2.2, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
the meta-objective:              min over theta of sum_i L(phi_i, D_i^ts)
"""

from collections.abc import Sequence

from ..pickling import picklable
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, InnerRate, LossFn, Params
from ..unroll import stepping, unrolled


@picklable
def maml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Learn an initialisation theta from which a few gradient steps fit a new task.

    Args:
        loss_fn: (params, batch) -> scalar, L of the equations.
        inner_lr: alpha: a number; a scalar tensor; a dict with one of either, or a tensor of rates, for each name; or
            an optimizer for the inner steps, such as ``fmaml.momentum(0.1)``.
        steps: inner steps, 0 or more; memory grows with them unless ``first_order`` or ``remat``.
        first_order: treat inner gradients as constants (FOMAML), without second derivatives.
        only: patterns of the names of the parameters that are adapted, as in a shell.
        inner: the rule of the inner steps: "sgd", "momentum", "adam" or "rmsprop".
        remat: run each inner step again for its derivative instead of keeping its graph; the loss can then be
            differentiated only once, and only with respect to theta.

    Returns:
        The algorithm; its theta is the parameters.

    Raises:
        ValueError: an unknown ``inner``; on use: a pattern of ``only`` matches no name, or a rate is missing.

    Source: arXiv 1703.03400.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.maml(loss_fn, inner_lr=0.01, steps=5, only=("layer2.*",))
    >>> theta = model.init(torch.Generator().manual_seed(0))
    >>> phi = algorithm.adapt(theta, fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1)))
    >>> [name for name in phi if not torch.equal(phi[name], theta[name])]
    ['layer2.weight', 'layer2.bias']
    """
    step = stepping(inner, inner_lr)
    return unrolled(loss_fn, lambda theta: step, steps=steps, first_order=first_order, only=only, remat=remat)
