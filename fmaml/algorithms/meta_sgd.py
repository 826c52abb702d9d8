"""Meta-SGD (Li, Zhou, Chen and Li, arXiv 1707.09835): a learnt rate for each single parameter.

Inner step:    phi_i = theta - alpha o grad L(theta, D_i^tr), with alpha of the shape of theta
Outer loop:    min over theta and alpha of sum_i L(phi_i, D_i^ts)
"""

from typing import Any

import torch

from ..ranges import Natural, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, LossFn, Optimizer, Params
from ..unroll import its_params, stepping, unrolled

Theta = dict[str, Any]  # params, and rates of the same names and shapes


def meta_sgd(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """MAML with a learnt inner rate for each parameter, all of them ``inner_lr`` at first."""

    def init(params: Params) -> Theta:
        return {"params": dict(params), "rates": map_leaves(lambda p: torch.full_like(p, inner_lr), params)}

    def rule_of(theta: Theta) -> Optimizer:
        return stepping(inner, theta["rates"])

    return unrolled(
        loss_fn, rule_of, steps=steps, init=init, start=its_params, first_order=first_order, only=only, remat=remat
    )
