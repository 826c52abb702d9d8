"""Algorithms that differentiate through their inner steps, like MAML.

They share the steps phi_0 .. phi_K and the query loss at the end. They differ in the contents of theta (``init``), the
first point (``start``), the rate or optimizer (``rule``) and the adapted parameters (``only``).
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor

from .inner import EVERYTHING, Mask, adapt, as_optimizer, trajectory
from .outer import query_loss
from .remat import recomputed_query_loss, theta_itself
from .tree import leaves
from .types import Algorithm, Batch, InnerRate, LossFn, Optimizer, Params, ThetaT


class WithParams(TypedDict):
    """A theta with other tensors beside the parameters."""

    params: Params


def params_of(theta: WithParams, support: Batch) -> Params:
    """The start of an algorithm with other tensors in theta: phi_0 = theta["params"]."""
    return theta["params"]


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

    MAML is ``unrolled(loss_fn, alpha, steps=K)``.

    Args:
        loss_fn: (params, batch) -> scalar.
        rule: the inner rate or optimizer, as `maml` takes for ``inner_lr``; or a function from theta to it.
        steps: the number of inner steps, 0 or more.
        init: params -> theta; by default theta is the parameters.
        start: (theta, support) -> phi_0; by default theta.
        first_order, only, remat: as in `maml`.

    Returns:
        The algorithm; its theta is that of ``init``.

    Raises:
        ValueError: on use: a pattern of ``only`` matches no name, or a rate is missing.

    Source: arXiv 1703.03400.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> algorithm = fmaml.unrolled(loss_fn, 0.5, steps=2)
    >>> algorithm.adapt({"p": torch.tensor(4.0)}, fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0])))
    {'p': tensor(2.5000)}
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
    """Gradient descent with a rate for each name and inner step, rates[name] [steps]; later steps use the last rate."""

    def step(grads: Params, taken: Tensor, params: Params) -> tuple[Params, Tensor]:
        now = as_optimizer({name: entry_at(rate, taken) for name, rate in rates.items()})
        return now.step(grads, (), params)[0], taken + 1

    return Optimizer(no_steps, step)


def no_steps(params: Params) -> Tensor:
    """The initial number of inner steps taken, 0, as a scalar tensor on the parameters' device."""
    return leaves(params)[0].new_zeros(())


def entry_at(values: Tensor, step: Tensor) -> Tensor:
    """The entry of ``values`` [steps, *shape] for this step; after the end the last one.

    A masked sum, because torch 2.13's inductor computes a wrong gradient of indexing by a tensor here.
    """
    current = torch.arange(len(values), device=values.device) == step.clamp(max=len(values) - 1)
    return torch.where(current.view(-1, *[1] * (values.ndim - 1)), values, 0).sum(0)
