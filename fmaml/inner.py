"""The inner loop: from the meta-parameters theta to a task's parameters phi (arXiv 1703.03400, section 2.2).

The inner loop walks from theta = phi_0 to phi = phi_K; gradient-based algorithms differ in the step. ``lr`` may always
be a number, a scalar tensor, a dict with one of either (or a tensor of rates) for each parameter's name, or an
`Optimizer`: any rule, with any state. A rule may use tensors of theta, which are then learnt. ``only`` lists patterns
of parameter names, as in a shell ("head.*"): the parameters that the inner loop changes; the others stay as they are.
"""

from __future__ import annotations  # torch.compile cannot trace tuple[...] in a rule's signature

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any, cast, overload

from torch.func import grad

from .inner_rules import as_rule
from .tree import detach
from .types import Batch, InnerRate, LossFn, OptState, Params

EVERYTHING = ("*",)
INITIAL_STATE: Any = object()  # stands for the state that the rule begins with


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
    state: OptState = INITIAL_STATE,
    *,
    first_order: bool = False,
) -> Params | tuple[Params, OptState]:
    """One inner step, phi = theta - alpha * grad L(theta, D^tr).

    Args:
        loss_fn: (params, batch) -> scalar, L in the formula.
        params: theta, or the phi of the previous step; name -> tensor.
        batch: the support set D^tr, x [n, *shape] and y [n, *target].
        lr: alpha: a number, or what else `maml` takes for ``inner_lr``.
        state: if ``lr`` is an optimizer and this is not its first step, its state.
        first_order: treat the gradient as a constant (FOMAML), so that no graph for a second derivative is recorded.

    Returns:
        phi, with the names and shapes of ``params``; with a ``state``, phi and the optimizer's next state.

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
    if state is INITIAL_STATE:
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
    """Yield phi_0 = theta, then phi after an inner step on each of the batches."""
    rule = as_rule(lr)
    moved = select(params, only)
    part_loss = loss_of_part(loss_fn, detach(params) if first_order else params)
    state = rule.init(moved)
    yield params
    for batch in batches:
        moved, state = inner_update(part_loss, moved, batch, rule, state, first_order=first_order)
        yield {**params, **moved}


def loss_of_part(loss_fn: LossFn, params: Params) -> LossFn:
    """The loss as a function of some of the parameters; the others have their values in ``params``."""
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
    """The parameters after every inner step, [phi_0, phi_1, .., phi_steps] with phi_0 = theta.

    Args:
        loss_fn: (params, batch) -> scalar.
        params: theta, name -> tensor.
        support: D^tr, x [n, *shape] and y [n, *target]; every step uses all of it.
        lr: the inner rate alpha: a number, or what else `maml` takes for ``inner_lr``.
        steps: how many inner steps, 0 or more.
        first_order: treat each inner gradient as a constant (FOMAML).
        only: patterns of the names of the parameters that change.

    Returns:
        A list of ``steps + 1`` dicts with the names and shapes of ``params``.

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
    """The parameters phi after ``steps`` inner steps: the last of the `trajectory`, without keeping the others.

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
    return last(walk(loss_fn, params, repeated(support, steps), lr, first_order=first_order, only=only))


def last(phis: Iterator[Params]) -> Params:
    """The last of an inner loop's parameters; no other is kept."""
    return deque(phis, maxlen=1).pop()


def repeated(support: Batch, steps: int) -> Iterable[Batch]:
    """The same batch for each inner step; ValueError if ``steps`` is negative."""
    check_steps(steps)
    return repeat(support, steps)


def check_steps(steps: int) -> None:
    """ValueError if ``steps`` is negative."""
    if steps < 0:
        raise ValueError(f"steps = {steps}: must be 0 or more")


def select(params: Params, only: Sequence[str], key: str = "only") -> Params:
    """The parameters whose names match one of the patterns ``only``; messages name the setting ``key``.

    Raises:
        ValueError: there are no parameters or no pattern, or a pattern matches none of them.
    """
    patterns = (only,) if isinstance(only, str) else tuple(only)
    return {name: params[name] for name in _matching(tuple(params), patterns, key)}


def _matching(names: tuple[str, ...], only: tuple[str, ...], key: str) -> tuple[str, ...]:
    if not names:
        raise ValueError("params = {}: nothing could be adapted; give the parameters of a model")
    if not only:
        raise ValueError(f"{key} = []: nothing could be adapted; give patterns of names among {list(names)}")
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{key} = {list(only)}: no parameter is named like {pattern!r}; there are {list(names)}")
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in only))


# torch.compile cannot trace the matching, whose result is constant while a step is compiled. This is all that
# torch.compiler.assume_constant_result does, but for importing the compiler, which takes longer than the rest of torch.
cast(Any, _matching)._dynamo_marked_constant = True
