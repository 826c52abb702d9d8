"""Meta-SGD (Li, Zhou, Chen and Li, arXiv 1707.09835): a learnt rate for each single parameter.

Equation 2:    phi_i = theta - alpha o grad L(theta, D_i^tr), with alpha of the shape of theta
Equation 3:    min over theta and alpha of sum_i L(phi_i, D_i^ts)
"""

from functools import partial
from typing import Any

import torch

from ..inner import descent, trajectory
from ..optim import chain, rule
from ..outer import query_loss
from ..ranges import Natural, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, Batch, LossFn, Params

Theta = dict[str, Any]  # params, and rates of the same names and shapes


def meta_sgd(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Natural,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
) -> Algorithm:
    """MAML with a learnt inner rate for each parameter, all of them ``inner_lr`` at first."""

    def init(params: Params) -> Theta:
        return {"params": dict(params), "rates": map_leaves(lambda p: torch.full_like(p, inner_lr), params)}

    def phis(theta: Theta, support: Batch, steps: int = steps) -> list[Params]:
        update = chain(*rule(inner), descent(theta["rates"]))
        return trajectory(loss_fn, theta["params"], support, update, steps=steps, first_order=first_order, only=only)

    def adapt(theta: Theta, support: Batch) -> Params:
        return phis(theta, support)[-1]

    return Algorithm(init, adapt, partial(query_loss, loss_fn, adapt), phis)
