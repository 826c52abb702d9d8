"""Meta-SGD (Li, Zhou, Chen and Li, arXiv 1707.09835): a learnt rate for each number in theta.

Inner step:    phi_i = theta - alpha o grad L(theta, D_i^tr), with alpha of the shape of theta
Outer loop:    min over theta and alpha of sum_i L(phi_i, D_i^ts)
"""

from collections.abc import Sequence
from typing import TypedDict

import torch

from ..inner import inner_rule
from ..setting_types import Rate, Rule, Steps
from ..tree import map_leaves
from ..types import Algorithm, InnerRate, LossFn, Params
from ..unroll import params_of, unrolled


class MetaSgdTheta(TypedDict):
    """The parameters and their rates."""

    params: Params
    rates: Params  # with the same names and shapes


def meta_sgd(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Steps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[MetaSgdTheta]:
    """MAML with a learnt inner rate for each number in theta, initially ``inner_lr``.

    Args:
        inner_lr: the initial value of the rates, above 0.
        loss_fn, steps, first_order, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "rates": ..}, both with the parameters' names and shapes.

    Source: arXiv 1707.09835.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.meta_sgd(loss_fn, inner_lr=0.1, steps=1)
    >>> theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    >>> theta["rates"]["layer2.bias"]
    tensor([0.1000])
    """

    def init(params: Params) -> MetaSgdTheta:
        return {"params": dict(params), "rates": map_leaves(lambda p: torch.full_like(p, inner_lr), params)}

    def rule(theta: MetaSgdTheta) -> InnerRate:
        return inner_rule(inner, theta["rates"])

    return unrolled(
        loss_fn, rule, steps=steps, init=init, start=params_of, first_order=first_order, only=only, remat=remat
    )
