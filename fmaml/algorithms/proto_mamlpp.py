"""Prototypes, learnt rates and a loss at every step: Proto-MAML and parts of MAML++ in one algorithm.

Start (arXiv 1903.03096):    W_k = 2 s c_k, b_k = -s |c_k|^2, c_k the mean feature of class k and s a learnt scale
Inner step k, layer l:       phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr), alpha learnt        (arXiv 1810.09502)
Outer loop:                  sum_k w_k L(phi_ik, D_i^ts), whose weight moves to the last step      (arXiv 1810.09502)
"""

from typing import Any

from ..anneal import multi_step
from ..head import outputs_of, prototypes
from ..inner import descent_by_step
from ..losses import Apply
from ..ranges import Count, Natural, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, Batch, LossFn, Optimizer, Params
from ..unroll import stepping, unrolled

Theta = dict[str, Any]  # params; rates [steps] of the same names; scale, a scalar


def proto_mamlpp(
    loss_fn: LossFn,
    apply: Apply,
    *,
    inner_lr: Rate,
    steps: Count,
    multi_step_until: Natural = 0,
    scale: Rate = 1.0,
    first_order: bool = False,
    only: tuple[str, ...] = ("*",),
    head: str = "head",
    inner: Rule = "sgd",
    remat: bool = False,
) -> Algorithm:
    """Inner steps with learnt rates from a head made of prototypes, judged after each of them; classification only.

    ``inner_lr`` and ``scale`` are where the rates and the scale of the first head begin. While the multi-step loss is
    on, ``remat`` saves nothing.
    """

    def init(params: Params) -> Theta:
        weight = outputs_of(params, head)
        rates = map_leaves(lambda p: p.new_full((steps,), inner_lr), params)
        return {"params": dict(params), "rates": rates, "scale": weight.new_tensor(scale)}

    def start(theta: Theta, support: Batch) -> Params:
        phi = prototypes(apply, theta["params"], support, head, "proto_mamlpp")
        return phi | {f"{head}.{part}": theta["scale"] * phi[f"{head}.{part}"] for part in ("weight", "bias")}

    def rule_of(theta: Theta) -> Optimizer:
        return stepping(inner, descent_by_step(theta["rates"]))

    settings = {"steps": steps, "first_order": first_order, "only": only, "remat": remat}
    walk = unrolled(loss_fn, rule_of, init=init, start=start, **settings)
    return multi_step(walk, loss_fn, until=multi_step_until)
