"""LSLR, rates by layer and step (Antoniou, Edwards and Storkey, arXiv 1810.09502, LSLR).

Inner step k, layer l:    phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr), every alpha_lk learnt with theta
"""

from typing import Any

from ..inner import descent_by_step
from ..ranges import Count, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, LossFn, Optimizer, Params
from ..unroll import its_params, stepping, unrolled

Theta = dict[str, Any]  # params, and rates [steps] of the same names


def lslr(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Count,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """MAML with a learnt rate for each parameter tensor and inner step, all of them ``inner_lr`` at first.

    The rate of the last step serves every step beyond ``steps``.
    """

    def init(params: Params) -> Theta:
        return {"params": dict(params), "rates": map_leaves(lambda p: p.new_full((steps,), inner_lr), params)}

    def rule_of(theta: Theta) -> Optimizer:
        return stepping(inner, descent_by_step(theta["rates"]))

    return unrolled(
        loss_fn, rule_of, steps=steps, init=init, start=its_params, first_order=first_order, only=only, remat=remat
    )
