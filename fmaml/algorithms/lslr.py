"""LSLR (Antoniou, Edwards and Storkey, arXiv 1810.09502): a learnt rate for each layer and inner step.

Inner step k, layer l:    phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr), every alpha_lk learnt with theta
"""

from collections.abc import Sequence
from typing import TypedDict

from ..inner import inner_rule
from ..setting_types import PositiveSteps, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, InnerRate, LossFn, Params
from ..unroll import descent_by_step, params_of, unrolled


class LslrTheta(TypedDict):
    """The parameters and their rates for each inner step."""

    params: Params
    rates: Params  # [steps], with the same names


def lslr(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: PositiveSteps,
    first_order: bool = False,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm[LslrTheta]:
    """MAML with a learnt rate for each parameter tensor and inner step, initially ``inner_lr``.

    Args:
        inner_lr: the initial value of the rates, above 0.
        steps: inner steps, 1 or more; further steps use the rate of the last one.
        loss_fn, first_order, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "rates": name -> [steps]}.

    Source: arXiv 1810.09502.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.lslr(loss_fn, inner_lr=0.1, steps=3)
    >>> algorithm.init(model.init(torch.Generator()))["rates"]["layer2.weight"]
    tensor([0.1000, 0.1000, 0.1000])
    """

    def init(params: Params) -> LslrTheta:
        return {"params": dict(params), "rates": map_leaves(lambda p: p.new_full((steps,), inner_lr), params)}

    def rule(theta: LslrTheta) -> InnerRate:
        return inner_rule(inner, descent_by_step(theta["rates"]))

    return unrolled(
        loss_fn, rule, steps=steps, init=init, start=params_of, first_order=first_order, only=only, remat=remat
    )
