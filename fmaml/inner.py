"""The inner loop: from the meta-parameters theta to a task's parameters phi (arXiv 1703.03400, section 2.2).

Every gradient-based algorithm is this one walk with another update. Wherever ``lr`` stands, it is a number, a scalar
tensor, a dict with one of either (or a tensor of rates) for each parameter's name, or an `Optimizer`: any rule, with
any state, that may hold tensors of theta, which are then learnt. ``only`` are patterns of parameter names, as in a
shell ("head.*"): the parameters that the walk may move; the others stay as they are.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from .tree import detach, leaves
from .types import Batch, LossFn, Optimizer, Params

EVERYTHING = ("*",)


def descend(params: Params, grads: Params, lr: Any) -> Params:
    """params - lr * grads; ``lr`` is a number, a tensor, or one of either for each name."""
    rates: dict[str, Any] = lr if isinstance(lr, dict) else dict.fromkeys(params, lr)
    if missing := params.keys() - rates.keys():
        raise ValueError(f"inner_lr: no rate for {', '.join(sorted(missing))}; give one for each parameter that moves")
    return {name: p - rates[name] * grads[name] for name, p in params.items()}


def descent(lr: Any) -> Optimizer:
    """The update of `descend`; an `Optimizer` passes as it is."""
    if isinstance(lr, Optimizer):
        return lr
    return Optimizer(lambda params: (), lambda grads, state, params: (descend(params, grads, lr), state))


def descent_by_step(rates: Params) -> Optimizer:
    """Descent with rates [steps] for each name, one an inner step; the last one stays in use after the end."""

    def update(grads: Params, step: Tensor, params: Params) -> tuple[Params, Tensor]:
        return descend(params, grads, {name: of_step(rate, step) for name, rate in rates.items()}), step + 1

    return Optimizer(no_step, update)


def no_step(params: Params) -> Tensor:
    """A count of inner steps, 0 so far: a tensor like the parameters, as every state of an optimizer."""
    return leaves(params)[0].new_zeros(())


def of_step(values: Tensor, step: Tensor) -> Tensor:
    """Of ``values`` [steps, *shape] the one of this step, and after the end the last.

    A sum with zeros, since torch 2.13's inductor makes a wrong gradient of indexing by a tensor here.
    """
    mine = torch.arange(len(values), device=values.device) == step.clamp(max=len(values) - 1)
    return torch.where(mine.view(-1, *[1] * (values.ndim - 1)), values, 0).sum(0)


def select(params: Params, only: Sequence[str], key: str = "only") -> Params:
    """The parameters whose names match one of the patterns; ``key`` is what messages call those.

    Raises ValueError if there are no parameters or no pattern, or one that matches none of them.
    """
    patterns = (only,) if isinstance(only, str) else tuple(only)
    return {name: params[name] for name in matching(tuple(params), patterns, key)}


@torch.compiler.assume_constant_result  # names are known when a step is compiled; the matching cannot be traced
def matching(names: tuple[str, ...], only: tuple[str, ...], key: str) -> tuple[str, ...]:
    if not names:
        raise ValueError("params = {}: nothing could be adapted; give the parameters of a model")
    if not only:
        raise ValueError(f"{key} = []: nothing could be adapted; give patterns of names among {list(names)}")
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{key} = {list(only)}: no parameter is named like {pattern!r}; there are {list(names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in only))


def inner_grad(loss_fn: LossFn, params: Params, moved: Params, batch: Batch, first_order: bool) -> Params:
    """grad L(phi, D^tr) with respect to the ``moved`` of the ``params``, where those have the values in ``moved``."""
    fixed, moved = (detach(params), detach(moved)) if first_order else (params, moved)
    return grad(lambda part: loss_fn({**fixed, **part}, batch))(moved)


def inner_update(loss_fn: LossFn, params: Params, batch: Batch, lr: Any, *, first_order: bool = False) -> Params:
    """One step, phi' = phi - alpha * grad L(phi, D^tr).

    ``first_order`` takes the gradient as a constant: nothing is differentiated twice (FOMAML), nor recorded for it.
    """
    grads = inner_grad(loss_fn, params, params, batch, first_order)
    init, update = descent(lr)
    return update(grads, init(params), params)[0]


def walk(
    loss_fn: LossFn,
    params: Params,
    batches: Iterable[Batch],
    lr: Any,
    *,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> Iterator[Params]:
    """phi_0 = theta, then phi after an inner step on each of the batches."""
    init, update = descent(lr)
    moved = select(params, only)
    state = init(moved)
    yield params
    for batch in batches:
        grads = inner_grad(loss_fn, params, moved, batch, first_order)
        moved, state = update(grads, state, moved)
        yield {**params, **moved}


def times(steps: int, support: Batch) -> Iterable[Batch]:
    """The same batch for each inner step."""
    if steps < 0:
        raise ValueError(f"steps = {steps}: must be 0 or more")
    return repeat(support, steps)


def trajectory(
    loss_fn: LossFn,
    params: Params,
    support: Batch,
    lr: Any,
    *,
    steps: int,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> list[Params]:
    """[phi_0, phi_1, .., phi_steps] with phi_0 = theta, each one inner step after the one before it."""
    return list(walk(loss_fn, params, times(steps, support), lr, first_order=first_order, only=only))


def adapt(
    loss_fn: LossFn,
    params: Params,
    support: Batch,
    lr: Any,
    *,
    steps: int,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> Params:
    """theta -> phi: the last of the `trajectory`, of which no other is kept."""
    phis = walk(loss_fn, params, times(steps, support), lr, first_order=first_order, only=only)
    return deque(phis, maxlen=1).pop()
