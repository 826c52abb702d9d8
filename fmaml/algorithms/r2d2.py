"""R2-D2 (Bertinetto, Henriques, Torr and Vedaldi, arXiv 1805.08136): a head in closed form.

Ridge regression:                W = argmin |X W - Y|^2 + lambda |W|^2, X the support features, Y the targets
by Woodbury, n x n:              W = X' (X X' + lambda I)^-1 Y
a query's scores, for labels:    a x' W + b, with a, b and lambda learnt

For labels Y is one-hot, with one column a class. For regression a = 1 and b = 0.
"""

from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from ..head import features, head_weight, labels, ridge_regression, with_head
from ..losses import Apply
from ..outer import query_loss
from ..setting_types import Rate
from ..types import Algorithm, Batch, LossFn, Params


class R2D2Theta(TypedDict):
    """The parameters, and the learnt scalars of the ridge regression."""

    params: Params
    log_ridge: Tensor  # log lambda, a scalar
    scale: Tensor  # a, a scalar
    shift: Tensor  # b, a scalar


def r2d2(
    loss_fn: LossFn, apply: Apply, *, ridge: Rate = 1.0, scale: Rate = 10.0, head: str = "head"
) -> Algorithm[R2D2Theta]:
    """Fit the head to the support set by ridge regression, and learn the features through its solution.

    Args:
        loss_fn: (params, batch) -> scalar.
        apply: the model's forward pass, the one in ``loss_fn``.
        ridge: the initial value of lambda, above 0.
        scale: the initial value of a, above 0.
        head: the name of the network's last linear layer. It is replaced for each task; its values in theta are unused.

    Returns:
        The algorithm; its theta is {"params": .., "log_ridge": .., "scale": .., "shift": ..}. It has no trajectory.

    Raises:
        ValueError: from ``init``: the model has no such layer; on use: an example has more than one target.

    Source: arXiv 1805.08136.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.r2d2(loss_fn, model.apply)
    >>> support = fmaml.Batch(torch.rand(5, 1, 28, 28), torch.arange(5))
    >>> theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    >>> float(fmaml.accuracy(model.apply(algorithm.adapt(theta, support), support.x), support.y))
    1.0
    """

    def init(params: Params) -> R2D2Theta:
        weight = head_weight(params, head)
        return {
            "params": dict(params),
            "log_ridge": torch.log(weight.new_full((), ridge)),
            "scale": weight.new_full((), scale),
            "shift": weight.new_zeros(()),
        }

    def adapt(theta: R2D2Theta, support: Batch) -> Params:
        params = theta["params"]
        x = features(apply, params, support.x, head)  # [n, features]
        if support.y.is_floating_point():
            w = ridge_regression(x, support.y, theta["log_ridge"].exp())
            return with_head(params, w.T, w.new_zeros(w.shape[1]), head)
        y = labels(support, params, head, "r2d2")  # [n, ways]
        w = ridge_regression(x * y.sum(1, keepdim=True), y, theta["log_ridge"].exp())  # without padding
        return with_head(params, theta["scale"] * w.T, theta["shift"].expand(w.shape[1]), head)

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt))
