"""The inner loop: from the meta-parameters theta to a task's parameters phi (arXiv 1703.03400, section 2.2).

Every gradient-based algorithm is this one walk with another update. Wherever ``lr`` stands, it is a number, a scalar
tensor, a dict with one of either (or a tensor of rates) for each parameter's name, or an `Optimizer`: any rule, with
any state, that may hold tensors of theta, which are then learnt. ``only`` are patterns of parameter names, as in a
shell ("head.*"): the parameters that the inner loop may change; the others stay as they are.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any, cast, overload

import torch
from torch import Tensor
from torch.func import grad

from .optim import no_state
from .tree import detach, leaves
from .types import Batch, InnerRate, LossFn, Optimizer, OptState, Params, Rates

EVERYTHING = ("*",)
FIRST: Any = object()  # in place of a state: the one that the rule begins with


@overload
def inner_update(
    loss_fn: LossFn, params: Params, batch: Batch, lr: InnerRate, *, first_order: bool = False
) -> Params: ...
@overload
def inner_update(
    loss_fn: LossFn, params: Params, batch: Batch, lr: InnerRate, state: OptState, *, first_order: bool = False
) -> tuple[Params, OptState]: ...
def inner_update(
    loss_fn: LossFn,
    params: Params,
    batch: Batch,
    lr: InnerRate,
    state: OptState = FIRST,
    *,
    first_order: bool = False,
) -> Params | tuple[Params, OptState]:
    """One inner step, phi = theta - alpha * grad L(theta, D^tr).

    Args:
        loss_fn: (params, batch) -> scalar, L of the slides.
        params: theta, or the phi of the step before; name -> tensor.
        batch: the support set D^tr, x [n, *shape] and y [n, *target].
        lr: alpha; see the top of this file for all that it may be.
        state: the state of an optimizer given for ``lr``, where this is not its first step.
        first_order: take the gradient as a constant: nothing is differentiated twice (FOMAML), nor recorded for it.

    Returns:
        phi, of the names and shapes of ``params``; with a ``state``, phi and the optimizer's next state.

    Raises:
        ValueError: a dict of rates lacks one of the parameters.

    Source: arXiv 1703.03400, section 2.2.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):  # the gradient is p - mean(y)
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> fmaml.inner_update(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5)
    {'p': tensor(3.)}
    """
    rule = as_rule(lr)
    grads = grad(loss_fn)(detach(params) if first_order else params, batch)
    if state is FIRST:
        return rule.update(grads, rule.init(params), params)[0]
    return rule.update(grads, state, params)


def walk(
    loss_fn: LossFn,
    params: Params,
    batches: Iterable[Batch],
    lr: InnerRate,
    *,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> Iterator[Params]:
    """phi_0 = theta, then phi after an inner step on each of the batches."""
    rule, moved = as_rule(lr), select(params, only)
    part_loss = loss_of_part(loss_fn, detach(params) if first_order else params)
    state = rule.init(moved)
    yield params
    for batch in batches:
        moved, state = inner_update(part_loss, moved, batch, rule, state, first_order=first_order)
        yield {**params, **moved}


def loss_of_part(loss_fn: LossFn, params: Params) -> LossFn:
    """The loss as a function of some of the parameters, the others as they are in ``params``."""
    return lambda part, batch: loss_fn({**params, **part}, batch)


def trajectory(
    loss_fn: LossFn,
    params: Params,
    support: Batch,
    lr: InnerRate,
    *,
    steps: int,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> list[Params]:
    """All of the inner loop, [phi_0, phi_1, .., phi_steps] with phi_0 = theta.

    Args:
        loss_fn: (params, batch) -> scalar.
        params: theta, name -> tensor.
        support: D^tr, x [n, *shape] and y [n, *target]; every step sees all of it.
        lr: the inner rate alpha, or what may stand for it (see the top of this file).
        steps: how many inner steps, 0 or more.
        first_order: take each inner gradient as a constant (FOMAML).
        only: patterns of the names that may change.

    Returns:
        A list of ``steps + 1`` dicts of the names and shapes of ``params``.

    Raises:
        ValueError: ``steps`` is negative, there are no parameters, ``only`` matches none of them, or a dict of rates
            lacks one.

    Source: arXiv 1703.03400, section 2.2, repeated.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> phis = fmaml.trajectory(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5, steps=2)
    >>> [float(phi["p"]) for phi in phis]
    [4.0, 3.0, 2.5]
    """
    return list(walk(loss_fn, params, repeated(support, steps), lr, first_order=first_order, only=only))


def adapt(
    loss_fn: LossFn,
    params: Params,
    support: Batch,
    lr: InnerRate,
    *,
    steps: int,
    first_order: bool = False,
    only: Sequence[str] = EVERYTHING,
) -> Params:
    """theta -> phi, the parameters after ``steps`` inner steps: the last of the `trajectory`; no other is kept.

    Arguments and errors are those of `trajectory`.

    Returns:
        phi, of the names and shapes of ``params``.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> fmaml.adapt(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5, steps=2)
    {'p': tensor(2.5000)}
    """
    phis = walk(loss_fn, params, repeated(support, steps), lr, first_order=first_order, only=only)
    return deque(phis, maxlen=1).pop()


def repeated(support: Batch, steps: int) -> Iterable[Batch]:
    """The same batch for each inner step."""
    if steps < 0:
        raise ValueError(f"steps = {steps}: must be 0 or more")
    return repeat(support, steps)


def as_rule(lr: InnerRate) -> Optimizer:
    """The update that ``lr`` stands for: itself if it is an `Optimizer`, else params - lr * grads."""
    if isinstance(lr, Optimizer):
        return lr

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        rates = lr if isinstance(lr, Mapping) else dict.fromkeys(params, lr)
        return descend(params, grads, rates), state

    return Optimizer(no_state, update)


def descend(params: Params, grads: Params, rates: Rates) -> Params:
    """params - rates * grads, name by name."""
    if missing := params.keys() - rates.keys():
        raise ValueError(f"inner_lr: no rate for {', '.join(sorted(missing))}; give one for each parameter that moves")
    return {name: p - rates[name] * grads[name] for name, p in params.items()}


def descent_by_step(rates: Params) -> Optimizer:
    """Descent with rates [steps] for each name, one an inner step; the last one stays in use after the end."""

    def update(grads: Params, step: Tensor, params: Params) -> tuple[Params, Tensor]:
        return descend(params, grads, {name: of_step(rate, step) for name, rate in rates.items()}), step + 1

    return Optimizer(step_count, update)


def step_count(params: Params) -> Tensor:
    """How many inner steps were taken, 0 so far: a tensor like the parameters, as every state of an optimizer."""
    return leaves(params)[0].new_zeros(())


def of_step(values: Tensor, step: Tensor) -> Tensor:
    """Of ``values`` [steps, *shape] the one of this step, and after the end the last.

    A sum with zeros, since torch 2.13's inductor makes a wrong gradient of indexing by a tensor here.
    """
    mine = torch.arange(len(values), device=values.device) == step.clamp(max=len(values) - 1)
    return torch.where(mine.view(-1, *[1] * (values.ndim - 1)), values, 0).sum(0)


def select(params: Params, only: Sequence[str], key: str = "only") -> Params:
    """The parameters whose names match one of the patterns; messages call those ``key``.

    Raises:
        ValueError: there are no parameters or no pattern, or a pattern matches none of them.
    """
    patterns = (only,) if isinstance(only, str) else tuple(only)
    return {name: params[name] for name in _names_of(tuple(params), patterns, key)}


def _matching(names: tuple[str, ...], only: tuple[str, ...], key: str) -> tuple[str, ...]:
    if not names:
        raise ValueError("params = {}: nothing could be adapted; give the parameters of a model")
    if not only:
        raise ValueError(f"{key} = []: nothing could be adapted; give patterns of names among {list(names)}")
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{key} = {list(only)}: no parameter is named like {pattern!r}; there are {list(names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in only))


# names are known when a step is compiled, and the matching cannot be traced
_names_of: Callable[..., tuple[str, ...]] = cast(Any, torch.compiler).assume_constant_result(_matching)
