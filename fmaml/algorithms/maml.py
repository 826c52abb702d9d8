"""MAML (Finn, Abbeel and Levine, arXiv 1703.03400), FOMAML (``first_order``), ANIL and BOIL.

Section 2.2, ``steps`` times:    phi_i = theta - alpha * grad L(theta, D_i^tr)
the meta-objective:              min over theta of sum_i L(phi_i, D_i^ts)
ANIL (arXiv 1909.09157):         only the head is adapted,    phi_body = body
BOIL (arXiv 2008.08882):         only the body is adapted,    phi_head = head
"""

from collections.abc import Sequence
from functools import partial

from ..inner import Mask, adapt, inner_rule, trajectory
from ..outer import query_loss
from ..remat import recomputed_query_loss
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, Batch, InnerRate, LossFn, Params


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
        inner_lr: alpha: a number, a scalar tensor or a dict of rates by name, each a number or a tensor. Or an
            optimizer for the inner steps, such as ``fmaml.momentum(0.1)``.
        steps: inner steps, 0 or more; memory grows with them, except with ``first_order`` or ``remat``.
        first_order: treat inner gradients as constants (FOMAML), without second derivatives.
        only: shell patterns of the names of the adapted parameters.
        inner: the rule of the inner steps: "sgd", "momentum", "adam" or "rmsprop".
        remat: run each inner step again for its derivative instead of keeping its graph. The loss can then be
            differentiated only once, with respect to theta.

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
    alpha, only = inner_rule(inner, inner_lr), Mask(only)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, alpha, steps=steps, first_order=first_order, only=only)

    # phi(theta, D^tr): ``steps`` times phi - alpha * grad L(phi, D^tr), from theta;    loss(theta, task): L(phi, D^ts)
    phi = partial(adapt, loss_fn, lr=alpha, steps=steps, first_order=first_order, only=only)
    loss = partial(query_loss, loss_fn, phi)
    if remat and not first_order:
        loss = partial(recomputed_query_loss, loss_fn, lambda theta: alpha, steps=steps, only=only)
    return Algorithm(dict, phi, loss, phis)


def anil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("head.*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Adapt only the head; the body is shared by all tasks and learnt in the outer loop.

    Args:
        only: patterns of the head's parameter names, such as ("layer3.*",) for an `fmaml.mlp` of two hidden layers.
        loss_fn, inner_lr, steps, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters.

    Raises:
        ValueError: on use: a pattern of ``only`` matches no name.

    Source: arXiv 1909.09157.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.anil(loss_fn, inner_lr=0.1, steps=1, only=("layer2.*",))
    >>> theta = model.init(torch.Generator().manual_seed(0))
    >>> phi = algorithm.adapt(theta, fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1)))
    >>> torch.equal(phi["layer1.weight"], theta["layer1.weight"])
    True
    """
    return maml(loss_fn, inner_lr=inner_lr, steps=steps, first_order=first_order, only=only, inner=inner, remat=remat)


def boil(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("conv*", "norm*"),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """Adapt all but the head, so that the representation must change from task to task.

    Args:
        only: patterns of the body's parameter names. The default fits `fmaml.conv4`, unless its norm is "none". For
            `fmaml.resnet12` give ("block*",).
        loss_fn, inner_lr, steps, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters.

    Raises:
        ValueError: on use: a pattern of ``only`` matches no name.

    Source: arXiv 2008.08882.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.boil(loss_fn, inner_lr=0.1, steps=1, only=("layer1.*",))
    >>> theta = model.init(torch.Generator().manual_seed(0))
    >>> phi = algorithm.adapt(theta, fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1)))
    >>> torch.equal(phi["layer2.weight"], theta["layer2.weight"])
    True
    """
    return maml(loss_fn, inner_lr=inner_lr, steps=steps, first_order=first_order, only=only, inner=inner, remat=remat)
