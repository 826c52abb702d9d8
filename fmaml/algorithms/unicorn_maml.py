"""UNICORN-MAML (Ye and Chao, arXiv 2106.16245, section 5): MAML with one initial head vector for all classes.

W_k = w, b_k = b for all classes k;    then phi_i by ``steps`` inner steps, as in MAML

The numbering of a task's classes is arbitrary, but a plain head starts with other weights for each number. Here the
adapted network does not depend on the numbering. Cross-entropy ignores a change common to all classes, so w and b get
no gradient from it. Then this is MAML with a head that starts at 0: the first inner step moves only the head.
"""

from collections.abc import Sequence

import torch

from ..head import EMPTY_CLASS_SCORE, head_weight, labels, with_head
from ..inner import inner_rule, select
from ..setting_types import PositiveSteps, Rate, Rule
from ..types import Algorithm, Batch, InnerRate, LossFn, Params
from ..unroll import unrolled


def unicorn_maml(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: PositiveSteps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    head: str = "head",
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[Params]:
    """MAML with the same initial head weights for all classes; classification only.

    Args:
        steps: inner steps, 1 or more. The first moves only the head, so the body is adapted from the second on.
        only: patterns of the names of the adapted parameters; the head's weight must be among them.
        head: the name of the network's last linear layer.
        loss_fn, inner_lr, first_order, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. w and b are the means of the head's rows. So all rows have the same
        gradient and stay equal.

    Raises:
        ValueError: from ``init``: the model has no such layer, or ``only`` leaves its weight out; on use: the targets
            are not class labels.

    Source: arXiv 2106.16245.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.unicorn_maml(loss_fn, inner_lr=0.4, steps=5)
    >>> algorithm.init(model.init(torch.Generator().manual_seed(0)))["head.weight"].std(0).max()
    tensor(0.)
    """

    def init(params: Params) -> Params:
        weight, bias = head_weight(params, head), params[f"{head}.bias"]
        if f"{head}.weight" not in select(params, only):
            raise ValueError(
                f"unicorn_maml: only = {list(only)} leaves out {head}.weight, so no score would depend on the example; "
                f"add {head}.weight, or use maml with this mask"
            )
        return with_head(params, weight.mean(0).expand_as(weight).clone(), bias.mean().expand_as(bias).clone(), head)

    def start(theta: Params, support: Batch) -> Params:
        """A class without an example is never predicted."""
        shared, count = init(theta), labels(support, theta, head, "unicorn_maml").sum(0)
        bias = torch.where(count > 0, shared[f"{head}.bias"], EMPTY_CLASS_SCORE)
        return {**shared, f"{head}.bias": bias}

    alpha = inner_rule(inner, inner_lr)
    return unrolled(
        loss_fn, alpha, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
    )
