"""MAML++ (Antoniou, Edwards and Storkey, arXiv 1810.09502); each part can be switched on or off.

Inner step k:       phi_l = phi_l - alpha_lk * grad_l L(phi, D_i^tr)              ``learn_rates`` (LSLR)
                    scale = scale_k, shift = shift_k in the norms, also
                    for the query loss after step k                               ``norms_by_step`` (BNWB)

Outer loop:         min over theta of sum_i sum_k w_k L(phi_ik, D_i^ts)           ``multi_step_until`` (MSL)
                    with first-order gradients before a meta-step                 ``first_order_until`` (DA)

The cosine outer rate is ``train.schedule``. There are no running statistics by step (BNRS), since they would change no
output. The authors' code collects them but always normalises by the statistics of the batch, as here.
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
    """The parameters, and the rates and norms of each inner step."""

    params: Params  # without those of the norms, if they are learnt by step
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
    """MAML with learnt rates, norms by step, multi-step loss and derivative-order annealing; each can be switched off.

    Args:
        inner_lr: the rate, or the initial value of the learnt rates, above 0.
        steps: inner steps, 1 or more; further steps use the rates and norms of the last one.
        learn_rates: learn a rate for each parameter tensor and step.
        norms_by_step: learn the norms' scales and shifts for each step instead of adapting them. Those of step k are
            used in its support loss and in the query loss after it.
        multi_step_until: until this meta-step the loss is a weighted sum over all inner steps, as in
            `fmaml.multi_step`, and ``remat`` saves no memory.
        first_order_until: until this meta-step inner gradients are treated as constants.
        norms: patterns of the names of the norms' parameters, for ``norms_by_step``. They must match ``only``, too.
        loss_fn, only, inner, remat: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is {"params": .., "rates": name -> [steps], "norms": name -> [steps, *shape]}. Each
        parameter is in either "params" or "norms".

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
        by_step = norms_of(params, norms, only) if norms_by_step else {}
        shared = {name: p for name, p in params.items() if name not in by_step}
        theta: MamlppTheta = {"params": shared}
        if learn_rates:
            theta["rates"] = map_leaves(lambda p: p.new_full((steps,), inner_lr), shared)
        if by_step:
            theta["norms"] = map_leaves(lambda p: p.expand(steps, *p.shape).clone(), by_step)
        return theta

    def start(theta: MamlppTheta, support: Batch) -> Params:
        return {**theta["params"], **{name: values[0] for name, values in theta.get("norms", {}).items()}}

    def rule(theta: MamlppTheta) -> InnerRate:
        step = inner_rule(inner, descent_by_step(theta["rates"]) if "rates" in theta else inner_lr)
        return replaced_by_step(as_optimizer(step), theta["norms"]) if "norms" in theta else step

    def annealed(first_order: bool) -> Algorithm[MamlppTheta]:
        last_loss = unrolled(
            loss_fn, rule, steps=steps, init=init, start=start, first_order=first_order, only=only, remat=remat
        )
        return multi_step(with_norms_of_step(last_loss), loss_fn, until=multi_step_until)

    return first_then(annealed(first_order=True), annealed(first_order=False), until=first_order_until)


def norms_of(params: Params, norms: Sequence[str], only: Sequence[str]) -> Params:
    """The parameters that match both patterns; ValueError if no other parameter matches ``only``."""
    adapted = select(params, only)
    found = {name: p for name, p in select(params, norms, "norms").items() if name in adapted}
    if found.keys() == adapted.keys():
        raise ValueError(f"only = {list(only)}: norms_by_step takes them all; name others too, or switch it off")
    return found


def replaced_by_step(optimizer: Optimizer, values: Params) -> Optimizer:
    """The optimizer, except that parameters in ``values`` [steps, *shape] take their values of the next step."""

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


def with_norms_of_step(algorithm: Algorithm[MamlppTheta]) -> Algorithm[MamlppTheta]:
    """The algorithm with the norms of step k in its trajectory after step k, instead of those of the next step.

    ``adapt`` needs no change: after the last step both are the same.
    """
    phis = algorithm.trajectory
    assert phis is not None

    def trajectory(theta: MamlppTheta, support: Batch, *steps: int) -> list[Params]:
        by_step = phis(theta, support, *steps)
        corrected = by_step[:1]
        for before, phi in pairwise(by_step):
            corrected.append(phi | {name: before[name] for name in theta.get("norms", {})})
        return corrected

    return algorithm._replace(trajectory=trajectory)
