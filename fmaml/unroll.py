"""Algorithms that differentiate through their inner steps, as MAML does, with a theta, a start or rules of their own.

They share the steps phi_0 .. phi_K and the query loss at their end. They differ in what theta holds (``init``), where
the steps begin (``start``), which rate or optimizer takes them (``rule``) and which parameters they change (``only``).
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor

from .inner import EVERYTHING, Mask, adapt, as_optimizer, trajectory
from .outer import query_loss
from .pickling import picklable
from .remat import recomputed_query_loss, theta_itself
from .tree import leaves
from .types import Algorithm, Batch, InnerRate, LossFn, Optimizer, Params, ThetaT


class WithParams(TypedDict):
    """A theta that holds other tensors beside the parameters."""

    params: Params


def params_of(theta: WithParams, support: Batch) -> Params:
    """The start of an algorithm whose theta holds more: phi_0 = theta["params"]."""
    return theta["params"]


@picklable
def unrolled(
    loss_fn: LossFn,
    rule: InnerRate | Callable[[ThetaT], InnerRate],
    *,
    steps: int,
    init: Callable[[Params], ThetaT] = dict,
    start: Callable[[ThetaT, Batch], Params] = theta_itself,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
    remat: bool = False,
) -> Algorithm[ThetaT]:
    """The algorithm with phi_0 = start(theta, D^tr), ``steps`` inner steps by ``rule``, and the loss L(phi_K, D^ts).

    Args:
        loss_fn: (params, batch) -> scalar.
        rule: what ``lr`` may be in `fmaml.inner_update`, or a function of theta to that.
        steps: inner steps.
        init: from the network's parameters to theta, any tree of tensors; the default: theta is the parameters.
        start: from theta and the support set to phi_0; the default: theta itself.
        first_order, only, remat: as in `fmaml.maml`. With ``remat`` the loss can be differentiated only once, and only
            with respect to theta.

    Returns:
        The algorithm.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> def init(params):  # MAML that learns its inner rate, too
    ...     return {"params": params, "rate": torch.tensor(0.1)}
    >>> learnt = {"init": init, "start": lambda theta, support: theta["params"]}
    >>> algorithm = fmaml.unrolled(loss_fn, lambda theta: theta["rate"], steps=2, **learnt)
    >>> theta = algorithm.init(model.init(torch.Generator().manual_seed(0)))
    >>> tasks = fmaml.Task(*(fmaml.Batch(torch.ones(4, 5, 1), torch.zeros(4, 5, 1)) for _ in range(2)))
    >>> grads, metrics = fmaml.meta_grad(algorithm, theta, tasks)
    >>> grads["rate"].shape
    torch.Size([])
    """
    rate: Callable[[ThetaT], InnerRate] = rule if callable(rule) else lambda theta: rule
    only = Mask(only)
    options: Any = {"first_order": first_order, "only": only}

    def phi(theta: ThetaT, support: Batch) -> Params:
        return adapt(loss_fn, start(theta, support), support, rate(theta), steps=steps, **options)

    def phis(theta: ThetaT, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, start(theta, support), support, rate(theta), steps=steps, **options)

    kept = partial(query_loss, loss_fn, phi)
    recomputed = partial(recomputed_query_loss, loss_fn, rate, steps=steps, start=start, only=only)
    return Algorithm(init, phi, recomputed if remat and not first_order else kept, phis)


def descent_by_step(rates: Params) -> Optimizer:
    """Gradient descent with one rate for each name and inner step, rates[name] [steps]; later steps use the last."""

    def update(grads: Params, step: Tensor, params: Params) -> tuple[Params, Tensor]:
        now = as_optimizer({name: entry_at(rate, step) for name, rate in rates.items()})
        return now.update(grads, (), params)[0], step + 1

    return Optimizer(first_step, update)


def first_step(params: Params) -> Tensor:
    """The number of inner steps taken at first, 0, as a scalar tensor on the parameters' device."""
    return leaves(params)[0].new_zeros(())


def entry_at(values: Tensor, step: Tensor) -> Tensor:
    """The entry of ``values`` [steps, *shape] for this step; after the end the last one.

    It is a masked sum, since torch 2.13's inductor computes a wrong gradient of indexing by a tensor here.
    """
    current = torch.arange(len(values), device=values.device) == step.clamp(max=len(values) - 1)
    return torch.where(current.view(-1, *[1] * (values.ndim - 1)), values, 0).sum(0)
