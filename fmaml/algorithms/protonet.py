"""Prototypical networks (Snell, Swersky and Zemel, arXiv 1703.05175): the metric baseline.

Equation 1:    c_k = the mean of f(x) over the support examples of class k
Equation 2:    log p(y = k | x) = -|f(x) - c_k|^2, up to a constant of x
Equation 8:    -|f(x) - c_k|^2 = 2 c_k' f(x) - |c_k|^2 + what is the same for all k: a linear layer
"""

from functools import partial

from ..head import outputs_of, prototypes
from ..losses import Apply
from ..outer import query_loss
from ..types import Algorithm, Batch, LossFn, Params


def protonet(loss_fn: LossFn, apply: Apply, *, head: str = "head") -> Algorithm:
    """The class whose mean feature is nearest, no gradient step; classification only.

    The network's last layer ``head`` is replaced for each task; its own values stand idle in theta.
    """

    def init(params: Params) -> Params:
        outputs_of(params, head)
        return dict(params)

    def adapt(theta: Params, support: Batch) -> Params:
        return prototypes(apply, theta, support, head, "protonet")

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt))
