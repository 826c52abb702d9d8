"""MAML++ (Antoniou, Edwards and Storkey, arXiv 1810.09502), each of its parts a switch of its own.

Inner step k:       phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr)              ``learn_rates`` (LSLR)
                    the norms' scales and shifts are theta's own for each k       ``norms_by_step`` (BNWB)
Outer loop:         min over theta of sum_i sum_k w_k L(phi_ik, D_i^ts)           ``multi_step_until`` (MSL)
                    with first-order gradients before a meta-step                 ``first_order_until`` (DA)

The cosine outer rate is ``train.schedule``. Norms use the statistics of the batch at hand, so each step has its own.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from typing import Any

from ..anneal import first_then, multi_step
from ..inner import descent_by_step, no_step, of_step, select
from ..ranges import Count, Natural, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, LossFn, Optimizer, Params
from ..unroll import its_params, stepping, unrolled

Theta = dict[str, Any]  # params; rates: name -> [steps]; norms: name -> [steps, *shape]; those that are switched on


def mamlpp(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: Count,
    learn_rates: bool = True,
    norms_by_step: bool = True,
    multi_step_until: Natural = 0,
    first_order_until: Natural = 0,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
    norms: tuple[str, ...] = ("*norm*",),
    remat: bool = False,
) -> Algorithm:
    """MAML made stable: learnt rates, norms by step, multi-step loss, first order at first; each can be switched off.

    ``norms`` are patterns of the names that ``norms_by_step`` takes out of the inner descent, as far as ``only`` lets
    them move. Rates and norms of the last step serve every step beyond ``steps``. While the multi-step loss is on,
    ``remat`` saves nothing.
    """

    def init(params: Params) -> Theta:
        rates = map_leaves(lambda p: p.new_full((steps,), inner_lr), params)
        theta = {"params": dict(params)} | ({"rates": rates} if learn_rates else {})
        if not norms_by_step:
            return theta
        each = select(params, norms, "norms")
        return theta | {"norms": map_leaves(lambda p: p.expand(steps, *p.shape).clone(), each)}

    def rule_of(theta: Theta) -> Optimizer:
        step = stepping(inner, descent_by_step(theta["rates"]) if learn_rates else inner_lr)
        return replaced_by_step(step, theta["norms"]) if norms_by_step else step

    settings = {"steps": steps, "init": init, "start": its_params, "only": only, "remat": remat}
    orders = [unrolled(loss_fn, rule_of, first_order=order, **settings) for order in (True, False)]
    weighted = [multi_step(algorithm, loss_fn, until=multi_step_until) for algorithm in orders]
    return first_then(*weighted, until=first_order_until)


def replaced_by_step(optimizer: Optimizer, values: Params) -> Optimizer:
    """``optimizer`` on all other names; after step k those of ``values`` [steps, *shape] have their k-th value."""

    def others(params: Params) -> Params:
        found = {name: p for name, p in params.items() if name not in values}
        if not found:
            raise ValueError(f"only = {list(params)}: norms_by_step takes them all; name others too, or switch it off")
        return found

    def update(grads: Params, state: tuple, params: Params) -> tuple[Params, tuple]:
        step, own = state
        moved, own = optimizer.update(others(grads), own, others(params))
        return {**moved, **{name: of_step(v, step) for name, v in values.items() if name in params}}, (step + 1, own)

    return Optimizer(lambda params: (no_step(params), optimizer.init(others(params))), update)
