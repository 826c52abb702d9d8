"""MAML++ (Antoniou, Edwards and Storkey, arXiv 1810.09502), each part of which can be switched on or off.

Inner step k:       phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr)              ``learn_rates`` (LSLR)
                    each k has its own scales and shifts of the norms, for its
                    support loss and the query loss after it                      ``norms_by_step`` (BNWB)
Outer loop:         min over theta of sum_i sum_k w_k L(phi_ik, D_i^ts)           ``multi_step_until`` (MSL)
                    with first-order gradients before a meta-step                 ``first_order_until`` (DA)

The cosine outer rate is ``train.schedule``. There are no running statistics by step (BNRS): the authors' code collects
them but normalises every batch, in training and in testing, by its own statistics, as is done here, so they would
change no output.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Sequence
from itertools import pairwise
from typing import NotRequired, TypedDict

from torch import Tensor

from ..anneal import first_then, multi_step
from ..inner import as_optimizer, inner_rule, select
from ..setting_types import Natural, PositiveSteps, Rate, Rule
from ..tree import map_leaves
from ..types import Algorithm, Batch, InnerRate, LossFn, Optimizer, OptState, Params
from ..unroll import descent_by_step, entry_at, no_steps, unrolled


class MamlppTheta(TypedDict):
    """The parameters and what is learnt for each inner step."""

    params: Params  # but those of the norms, if they are learnt by step
    rates: NotRequired[Params]  # name -> [steps]; with learn_rates
    norms: NotRequired[Params]  # name -> [steps, *shape]; with norms_by_step


def mamlpp(
    loss_fn: LossFn,
    *,
    inner_lr: Rate,
    steps: PositiveSteps,
    learn_rates: bool = True,
    norms_by_step: bool = True,
    multi_step_until: Natural = 0,
    first_order_until: Natural = 0,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
    norms: Sequence[str] = ("*norm*",),
    remat: bool = False,
) -> Algorithm[MamlppTheta]:
    """MAML made stable: learnt rates, norms by step, multi-step loss, first order at first; each can be switched off.

    Args:
        inner_lr: the rate, or the initial value of the learnt rates, above 0.
        steps: inner steps, 1 or more; further steps use the rates and norms of the last one.
        learn_rates: learn a rate for each parameter tensor and step.
        norms_by_step: learn the norms' scales and shifts for each step instead of adapting them: those of step k serve
            its support loss and the query loss after it.
        multi_step_until: the meta-step until which the loss is a weighted sum over all inner steps, as in
            `fmaml.multi_step`; before it ``remat`` saves no memory.
        first_order_until: the meta-step until which inner gradients are treated as constants.
        norms: patterns of the names of the norms' parameters, for ``norms_by_step``; only those that also match
            ``only`` change by step.
        loss_fn, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "rates": name -> [steps], "norms": name -> [steps, *shape]}, with
        each parameter in "params" or in "norms".

    Raises:
        ValueError: from ``init``: no name matches ``norms`` or ``only``, or no other parameter is left to adapt.

    Source: arXiv 1810.09502.

    >>> import torch, fmaml
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    >>> algorithm = fmaml.mamlpp(loss_fn, inner_lr=0.1, steps=5, multi_step_until=1000)
    >>> algorithm.init(model.init(torch.Generator()))["norms"]["norm1.weight"].shape
    torch.Size([5, 8])
    """

    def init(params: Params) -> MamlppTheta:
        each = norms_of(params, norms, only) if norms_by_step else {}
        shared = {name: p for name, p in params.items() if name not in each}
        theta: MamlppTheta = {"params": shared}
        if learn_rates:
            theta["rates"] = map_leaves(lambda p: p.new_full((steps,), inner_lr), shared)
        if each:
            theta["norms"] = map_leaves(lambda p: p.expand(steps, *p.shape).clone(), each)
        return theta

    def start(theta: MamlppTheta, support: Batch) -> Params:
        return {**theta["params"], **{name: values[0] for name, values in theta.get("norms", {}).items()}}

    def rule(theta: MamlppTheta) -> InnerRate:
        step = inner_rule(inner, descent_by_step(theta["rates"]) if "rates" in theta else inner_lr)
        return replaced_by_step(as_optimizer(step), theta["norms"]) if "norms" in theta else step

    def annealed(first_order: bool) -> Algorithm[MamlppTheta]:
        by_last_step = unrolled(
            loss_fn, rule, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
        )
        return multi_step(judged_by_step(by_last_step), loss_fn, until=multi_step_until)

    return first_then(annealed(first_order=True), annealed(first_order=False), until=first_order_until)


def norms_of(params: Params, norms: Sequence[str], only: Sequence[str]) -> Params:
    """The parameters that match both patterns; ValueError if all that match ``only`` do."""
    adapted = select(params, only)
    each = {name: p for name, p in select(params, norms, "norms").items() if name in adapted}
    if each.keys() == adapted.keys():
        raise ValueError(f"only = {list(only)}: norms_by_step takes them all; name others too, or switch it off")
    return each


def replaced_by_step(optimizer: Optimizer, values: Params) -> Optimizer:
    """``optimizer``, but parameters in ``values`` [steps, *shape] take those of the next step."""

    def others(params: Params) -> Params:
        return {name: p for name, p in params.items() if name not in values}

    def init(params: Params) -> tuple[Tensor, OptState]:
        return no_steps(params), optimizer.init(others(params))

    def step(grads: Params, state: tuple[Tensor, OptState], params: Params) -> tuple[Params, tuple[Tensor, OptState]]:
        taken, own_state = state
        moved, own_state = optimizer.step(others(grads), own_state, others(params))
        replaced = {name: entry_at(value, taken + 1) for name, value in values.items()}
        return moved | replaced, (taken + 1, own_state)

    return Optimizer(init, step)


def judged_by_step(algorithm: Algorithm[MamlppTheta]) -> Algorithm[MamlppTheta]:
    """``algorithm``, but after step k its trajectory still has the norms of step k, not yet those of the next.

    ``adapt`` needs no such change: after the last step both are the same.
    """
    phis = algorithm.trajectory
    assert phis is not None

    def trajectory(theta: MamlppTheta, support: Batch, *steps: int) -> list[Params]:
        by_step = phis(theta, support, *steps)
        judged = by_step[:1]
        for before, phi in pairwise(by_step):
            judged.append(phi | {name: before[name] for name in theta.get("norms", {})})
        return judged

    return algorithm._replace(trajectory=trajectory)
