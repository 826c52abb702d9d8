"""The rules of an inner step: an inner learning rate of any kind, as an optimizer."""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .optim.transforms import no_state
from .tree import leaves
from .types import InnerRate, Optimizer, Params, Rates


def as_rule(lr: InnerRate) -> Optimizer:
    """``lr`` itself if it is an `Optimizer`, else the rule params - lr * grads."""
    if isinstance(lr, Optimizer):
        return lr
    given: Any = lr  # at run time it may be anything
    if not isinstance(given, int | float | Tensor | Mapping):
        raise ValueError(
            f"inner_lr = {lr!r}: must be a number, a tensor, a dict of either by name, or an optimizer; a transform "
            f"takes no step by itself: chain(transform, sgd(0.1))"
        )

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        rates = lr if isinstance(lr, Mapping) else dict.fromkeys(params, lr)
        return descend(params, grads, rates), state

    return Optimizer(no_state, update)


def descend(params: Params, grads: Params, rates: Rates) -> Params:
    """params - rates * grads for each name; ValueError if a rate is missing."""
    if missing := params.keys() - rates.keys():
        raise ValueError(f"inner_lr: no rate for {', '.join(sorted(missing))}; give one for each parameter that moves")
    return {name: p - rates[name] * grads[name] for name, p in params.items()}


def descent_by_step(rates: Params) -> Optimizer:
    """Gradient descent with one rate for each name and inner step, rates[name] [steps]; later steps use the last."""

    def update(grads: Params, step: Tensor, params: Params) -> tuple[Params, Tensor]:
        return descend(params, grads, {name: of_step(rate, step) for name, rate in rates.items()}), step + 1

    return Optimizer(step_count, update)


def step_count(params: Params) -> Tensor:
    """The initial number of inner steps taken, 0, as a scalar tensor on the parameters' device."""
    return leaves(params)[0].new_zeros(())


def of_step(values: Tensor, step: Tensor) -> Tensor:
    """The entry of ``values`` [steps, *shape] for this step; after the end the last one.

    It is a masked sum, since torch 2.13's inductor computes a wrong gradient of indexing by a tensor here.
    """
    current = torch.arange(len(values), device=values.device) == step.clamp(max=len(values) - 1)
    return torch.where(current.view(-1, *[1] * (values.ndim - 1)), values, 0).sum(0)
