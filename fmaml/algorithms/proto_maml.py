"""Proto-MAML (Triantafillou et al., arXiv 1903.03096): MAML with a head that starts as the prototypes.

W_k = 2 c_k, b_k = -|c_k|^2, c_k the mean feature of class k;    then phi_i by ``steps`` inner steps, as in MAML

The meta-gradient passes through the prototypes as well.
"""

from collections.abc import Sequence

from ..head import head_weight, prototypes
from ..inner import inner_rule
from ..losses import Apply
from ..setting_types import Rate, Rule, Steps
from ..types import Algorithm, Batch, InnerRate, LossFn, Params
from ..unroll import unrolled


def proto_maml(
    loss_fn: LossFn,
    apply: Apply,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    head: str = "head",
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """MAML with a head that starts as the task's nearest-prototype classifier; classification only.

    Args:
        apply: the model's forward pass, the one in ``loss_fn``.
        head: the name of the network's last linear layer. It is replaced for each task; its values in theta are unused.
        loss_fn, inner_lr, steps, first_order, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters.

    Raises:
        ValueError: from ``init``: the model has no such layer; on use: the targets are not class labels.

    Source: arXiv 1903.03096.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.proto_maml(loss_fn, model.apply, inner_lr=0.01, steps=5)
    >>> support = fmaml.Batch(torch.rand(5, 1, 28, 28), torch.arange(5))
    >>> theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    >>> float(fmaml.accuracy(model.apply(algorithm.adapt(theta, support), support.x), support.y))
    1.0
    """

    def init(params: Params) -> Params:
        head_weight(params, head)
        return dict(params)

    def start(theta: Params, support: Batch) -> Params:
        return prototypes(apply, theta, support, head, "proto_maml")

    alpha = inner_rule(inner, inner_lr)
    return unrolled(
        loss_fn, alpha, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
    )
