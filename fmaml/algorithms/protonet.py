"""Prototypical networks (Snell, Swersky and Zemel, arXiv 1703.05175): the metric baseline.

Equation 1:    c_k = the mean of f(x) over the support examples of class k
Equation 2:    log p(y = k | x) = -|f(x) - c_k|^2, up to a constant of x
Equation 8:    -|f(x) - c_k|^2 = 2 c_k' f(x) - |c_k|^2 + a term that is the same for all k: a linear layer
"""

from functools import partial

from ..head import head_weight, prototypes
from ..losses import Apply
from ..outer import query_loss
from ..types import Algorithm, Batch, LossFn, Params


def protonet(loss_fn: LossFn, apply: Apply, *, head: str = "head") -> Algorithm[Params]:
    """Predict the class with the nearest mean feature, without a gradient step; classification only.

    Args:
        loss_fn: (params, batch) -> scalar.
        apply: the model's forward pass, the one in ``loss_fn``.
        head: the name of the network's last linear layer. It is replaced for each task; its values in theta are unused.

    Returns:
        The algorithm; its theta is the parameters. It has no trajectory.

    Raises:
        ValueError: from ``init``: the model has no such layer; on use: the targets are not class labels.

    Source: arXiv 1703.05175, equations 1, 2 and 8.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.protonet(loss_fn, model.apply)
    >>> support = fmaml.Batch(torch.rand(5, 1, 28, 28), torch.arange(5))
    >>> theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    >>> float(fmaml.accuracy(model.apply(algorithm.adapt(theta, support), support.x), support.y))
    1.0
    """

    def init(params: Params) -> Params:
        head_weight(params, head)
        return dict(params)

    def adapt(theta: Params, support: Batch) -> Params:
        return prototypes(apply, theta, support, head, "protonet")

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt))
