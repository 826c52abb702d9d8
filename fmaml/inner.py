"""The inner loop: from the meta-parameters theta to a task's parameters phi (arXiv 1703.03400, section 2.2).

`inner_update` is one step, and `adapt` takes K of them from phi_0 = theta. `inner_step` adds the options to it.
``lr`` is a number, a scalar tensor, a dict of rates by name, or an `Optimizer`: any rule, with any state. A rule may
use tensors of theta, which are then learnt. ``only`` lists shell patterns of names, such as "head.*". The inner loop
changes only the parameters that match.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from typing import Any, Self, cast

from torch import Tensor

from .setting_types import Rule
from .torch_fixes.grad_levels import grad
from .tree import detach
from .types import Batch, InnerRate, LossFn, Optimizer, OptState, Params, Rates

EVERYTHING = ("*",)


def inner_update(
    loss_fn: LossFn, params: Params, batch: Batch, lr: float | Tensor | Rates, *, first_order: bool = False
) -> Params:
    """One inner step, phi = theta - alpha * grad L(theta, D^tr).

    Args:
        loss_fn: (params, batch) -> scalar, L in the formula.
        params: theta, or the phi of the previous step; name -> tensor.
        batch: the support set D^tr, x [n, *shape] and y [n, *target].
        lr: alpha: a number, a scalar tensor, or a dict of rates by name. A rate in the dict may be a tensor, too.
        first_order: treat the gradient as a constant (FOMAML), without the graph for a second derivative.

    Returns:
        phi, with the names and shapes of ``params``.

    Raises:
        ValueError: a dict of rates lacks a parameter, or ``lr`` is of another type.

    Source: arXiv 1703.03400, section 2.2.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):  # the gradient is p - mean(y)
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> fmaml.inner_update(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5)
    {'p': tensor(3.)}
    """
    grads = inner_grad(loss_fn)(detach(params) if first_order else params, batch)
    rates = rate_by_name(lr, params)
    return {name: p - rates[name] * grads[name] for name, p in params.items()}


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
    """The parameters phi after ``steps`` inner steps: the last entry of the `trajectory`, without storing the others.

    Arguments and errors are those of `trajectory`.

    Returns:
        phi, with the names and shapes of ``params``.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> fmaml.adapt(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5, steps=2)
    {'p': tensor(2.5000)}
    """
    check_steps(steps)
    phi, (names, state) = params, begin(params, lr, only)
    for _ in range(steps):
        phi, state = inner_step(loss_fn, phi, state, support, lr, names, first_order=first_order)
    return phi


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
    """The parameters after every inner step, [phi_0, phi_1, .., phi_steps] with phi_0 = theta.

    Args:
        loss_fn: (params, batch) -> scalar.
        params: theta, name -> tensor.
        support: D^tr, x [n, *shape] and y [n, *target]; every step uses all of it.
        lr: the inner rate alpha: a number, or anything else that `maml` takes for ``inner_lr``.
        steps: the number of inner steps, 0 or more.
        first_order: treat each inner gradient as a constant (FOMAML).
        only: patterns of the names of the parameters that change.

    Returns:
        A list of ``steps + 1`` dicts with the names and shapes of ``params``.

    Raises:
        ValueError: ``steps`` is negative, ``params`` is empty, ``only`` matches no name, or a dict of rates lacks a
            parameter.

    Source: arXiv 1703.03400, section 2.2, repeated.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> support = fmaml.Batch(torch.zeros(2), torch.tensor([1.0, 3.0]))
    >>> phis = fmaml.trajectory(loss_fn, {"p": torch.tensor(4.0)}, support, 0.5, steps=2)
    >>> [float(phi["p"]) for phi in phis]
    [4.0, 3.0, 2.5]
    """
    check_steps(steps)
    phis, (names, state) = [params], begin(params, lr, only)
    for _ in range(steps):
        phi, state = inner_step(loss_fn, phis[-1], state, support, lr, names, first_order=first_order)
        phis.append(phi)
    return phis


# The options of a step


def begin(params: Params, lr: InnerRate, only: Sequence[str] = EVERYTHING) -> tuple[tuple[str, ...], OptState]:
    """The names of the adapted parameters, and the initial state of the rule; () if ``lr`` is a rate."""
    part = select(params, only)
    return tuple(part), lr.init(part) if isinstance(lr, Optimizer) else ()


def inner_step(
    loss_fn: LossFn,
    params: Params,
    state: OptState,
    batch: Batch,
    lr: InnerRate,
    names: Sequence[str],
    *,
    first_order: bool = False,
) -> tuple[Params, OptState]:
    """One step of the parameters with these names, by `inner_update` or by an optimizer; also the optimizer's state."""
    part = {name: params[name] for name in names}
    if len(part) < len(params):
        loss_fn = loss_of_part(loss_fn, detach(params) if first_order else params)
    if isinstance(lr, Optimizer):
        grads = inner_grad(loss_fn)(detach(part) if first_order else part, batch)
        part, state = lr.step(grads, state, part)
    else:
        part = inner_update(loss_fn, part, batch, lr, first_order=first_order)
    return {**params, **part}, state


class _InnerStep(threading.local):  # not a ContextVar, which torch.compile cannot trace
    active = False


_inner_step = _InnerStep()


def inner_grad(loss_fn: LossFn) -> Callable[[Params, Batch], Params]:
    """The gradient of an inner step; `in_inner_step` is true while its loss is computed."""

    def as_inner_step(params: Params, batch: Batch) -> Tensor:
        before, _inner_step.active = _inner_step.active, True
        try:
            return loss_fn(params, batch)
        finally:
            _inner_step.active = before

    return grad(as_inner_step)


def in_inner_step() -> bool:
    """Whether this thread is computing the loss of an inner step."""
    return _inner_step.active


def loss_of_part(loss_fn: LossFn, params: Params) -> LossFn:
    """The loss as a function of some parameters; the others keep their values in ``params``."""
    return lambda part, batch: loss_fn({**params, **part}, batch)


def check_steps(steps: int, key: str = "steps") -> None:
    """ValueError unless ``steps`` is a natural number; the message names the setting ``key``."""
    if not isinstance(cast(Any, steps), int):
        raise ValueError(f"{key} = {steps}: must be an integer")
    if steps < 0:
        raise ValueError(f"{key} = {steps}: must be 0 or more")


def rate_by_name(lr: float | Tensor | Rates, params: Params) -> Rates:
    """The rate of each parameter; ValueError if one is missing, or ``lr`` is of another type."""
    if not isinstance(lr, Mapping):
        check_rate(lr)
        return dict.fromkeys(params, lr)
    if missing := params.keys() - lr.keys():
        raise ValueError(f"inner_lr: no rate for {', '.join(sorted(missing))}; give one for each adapted parameter")
    return lr


def check_rate(lr: Any) -> None:
    """ValueError unless ``lr`` is an `InnerRate`."""
    if not isinstance(lr, int | float | Tensor | Mapping | Optimizer):
        raise ValueError(
            f"inner_lr = {lr!r}: must be a number, a tensor, a dict of either by name, or an optimizer; "
            f"put a transform before one: chain(transform, sgd(0.1))"
        )
    if isinstance(lr, Tensor) and lr.ndim:
        raise ValueError(
            f"inner_lr has the shape {list(lr.shape)}: must be a scalar; give a dict of rates, {{name: rate}}"
        )


def as_optimizer(lr: InnerRate) -> Optimizer:
    """``lr`` as an `Optimizer`: itself if it is one, else the step of `inner_update`."""
    if isinstance(lr, Optimizer):
        return lr

    def step(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        rates = rate_by_name(lr, params)
        return {name: p - rates[name] * grads[name] for name, p in params.items()}, state

    def init(params: Params) -> tuple[()]:
        return ()

    return Optimizer(init, step)


def inner_rule(inner: Rule, lr: InnerRate) -> InnerRate:
    """The inner rule: the transforms of the gradient named ``inner``, none for "sgd", then ``lr``; errors as `maml`."""
    check_rate(lr)
    lr = dict(lr) if isinstance(lr, Mapping) else lr  # a copy, since the caller may change its dict later
    if inner == "sgd":
        return lr
    from .optim.optimizers import rule_named  # imported here, since gradient descent needs no optimizers
    from .optim.transforms import chain

    return chain(*rule_named(inner), as_optimizer(lr))


class Mask(tuple[str, ...]):
    """Patterns of names, compiled in advance: torch's compiler can trace a match, but not compile a pattern."""

    regexes: tuple[re.Pattern[str], ...]

    def __new__(cls, only: Sequence[str]) -> Self:
        mask = super().__new__(cls, (only,) if isinstance(only, str) else only)
        mask.regexes = tuple(re.compile(translate(pattern)) for pattern in mask)
        return mask


def select(params: Params, only: Sequence[str], key: str = "only") -> Params:
    """The parameters with names that match one of the patterns ``only``; messages name the setting ``key``.

    Raises:
        ValueError: there are no parameters or no pattern, or a pattern matches none of them.
    """
    if not params:
        raise ValueError("params = {}: nothing to adapt; give the parameters of a model")
    if not only:
        raise ValueError(f"{key} = []: nothing to adapt; give patterns of names among {list(params)}")
    if tuple(only) == EVERYTHING:
        return params
    mask = only if isinstance(only, Mask) else Mask(only)
    for pattern, regex in zip(mask, mask.regexes, strict=True):
        if not any(map(regex.match, params)):
            raise ValueError(f"{key} = {list(mask)}: {pattern!r} matches no parameter; there are {list(params)}")
    return {name: p for name, p in params.items() if any(regex.match(name) for regex in mask.regexes)}
