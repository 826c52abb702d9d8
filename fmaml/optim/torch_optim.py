"""The optimizers and schedules of `torch.optim` as pure outer optimizers."""

# the types of the states of torch.optim are unknown to pyright:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..torch_fixes.grad_levels import is_differentiated, is_under_vmap
from ..tree import leaves, map_leaves
from ..types import Optimizer, Theta

NO_DERIVATIVE = "from_torch: a step of torch.optim has no derivative; use fmaml.adam, adamw, sgd or momentum"
MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], Any]


class TorchState(NamedTuple):
    """The state of an optimizer of torch and its schedule."""

    steps: Tensor  # int64, the number of steps taken
    values: list[Tensor]  # from their state_dicts: averages of gradients, and numbers such as rates as 0-d tensors


def from_torch(
    optimizer: Callable[..., torch.optim.Optimizer], *, scheduler: MakeScheduler | None = None, **settings: Any
) -> Optimizer:
    """An optimizer of `torch.optim`, with its schedule, as the outer optimizer.

    Every update calls the optimizer's own ``step()`` on a copy of theta. So it equals a plain torch loop bit for bit,
    and changes nothing in place.

    Args:
        optimizer: a class of `torch.optim`, such as ``torch.optim.AdamW`` or ``torch.optim.Muon``, or a function of the
            parameters.
        scheduler: optimizer -> a schedule of `torch.optim.lr_scheduler`, stepped after each update.
        settings: keyword arguments of the optimizer, such as ``lr`` or ``fused``.

    Returns:
        An optimizer; its state is a tree of tensors.

    Raises:
        ValueError: the optimizer or the schedule needs more than gradients, such as a closure or a metric. From
            ``step``: it is being differentiated; only fmaml's own optimizers, such as `fmaml.adam`, support that.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.from_torch(torch.optim.SGD, lr=0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.step({"p": torch.tensor(2.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.)}
    """

    if isinstance(cast(Any, optimizer), torch.optim.Optimizer):
        kind = type(cast(Any, optimizer)).__name__
        raise ValueError(f"from_torch: an optimizer, not its class; give from_torch(torch.optim.{kind}, lr=..)")

    def begin(theta: Theta) -> Running:
        if is_differentiated(theta) or is_under_vmap():
            raise ValueError(NO_DERIVATIVE)
        params = [p.detach().clone().requires_grad_() for p in leaves(theta)]
        made = optimizer(params, **settings)
        return Running(params, made, scheduler(made) if scheduler else None)

    def after_a_step(theta: Theta) -> Running:
        """The optimizer after one step with zero gradients: only then its averages exist."""
        running = begin(theta)
        take_step(running, [torch.zeros_like(p) for p in running.params])
        return running

    templates: dict[tuple[torch.Size, ...], Any] = {}  # theta's shapes -> the state_dicts after a step, tensors empty

    def template(theta: Theta) -> Any:
        shapes = tuple(p.shape for p in leaves(theta))
        if shapes not in templates:
            state = after_a_step(theta).state_dicts()
            templates[shapes] = pytree.tree_map_only(Tensor, lambda _: torch.empty(0), state)
        return templates[shapes]

    def init(theta: Theta) -> TorchState:
        values = [torch.zeros_like(value) for value in state_values(after_a_step(theta))]
        return TorchState(torch.zeros((), dtype=torch.int64), values)

    def step(grads: Theta, state: TorchState, theta: Theta) -> tuple[Theta, TorchState]:
        if is_differentiated((grads, theta)):
            raise ValueError(NO_DERIVATIVE)
        running = begin(theta)
        if state.steps > 0:
            load_values(running, template(theta), state.values)
        take_step(running, leaves(grads))
        moved = iter([p.detach() for p in running.params])
        return map_leaves(lambda _: next(moved), theta), TorchState(state.steps + 1, state_values(running))

    return Optimizer(init, step)


class Running(NamedTuple):
    """An optimizer of torch and its schedule, with their own copy of the parameters."""

    params: list[Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Any  # of torch.optim.lr_scheduler; None if there is none

    def state_dicts(self) -> list[dict[str, Any]]:
        """The states of both."""
        return [part.state_dict() for part in (self.optimizer, self.schedule) if part]


def state_values(running: Running) -> list[Tensor]:
    """The tensors and numbers of the state, in order; numbers as 0-d tensors of their type."""
    return [value_tensor(leaf) for leaf in pytree.tree_leaves(running.state_dicts()) if is_number_or_tensor(leaf)]


def load_values(running: Running, template: Any, values: list[Tensor]) -> None:
    """Load the ``values`` into the state; ``template`` gives its structure."""
    following = iter(values)

    def value(leaf: Any) -> Any:
        if not is_number_or_tensor(leaf):
            return leaf
        return next(following).clone() if isinstance(leaf, Tensor) else next(following).tolist()

    loaded = cast(list[dict[str, Any]], pytree.tree_map(value, template))
    for part, state in zip((running.optimizer, running.schedule), loaded, strict=False):
        part.load_state_dict(state)
    ordered = [p for group in running.optimizer.param_groups for p in group["params"]]
    for place, own in loaded[0]["state"].items():  # since load_state_dict rounds averages to the parameters' type
        running.optimizer.state[ordered[place]].update(own)


def is_number_or_tensor(leaf: Any) -> bool:
    """Whether the leaf is a tensor, a number or a bool."""
    return isinstance(leaf, (Tensor, int, float))


def value_tensor(leaf: Tensor | float) -> Tensor:
    """A copy of the tensor, or the number as a tensor without loss of digits."""
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return torch.tensor(leaf, dtype=torch.float64 if isinstance(leaf, float) else None)


def take_step(running: Running, grads: list[Tensor]) -> None:
    """Take one step with these gradients; ValueError if the optimizer or its schedule needs more."""
    for p, g in zip(running.params, grads, strict=True):
        p.grad = g.detach().to(p.dtype)
    try:
        running.optimizer.step()
        if running.schedule:
            running.schedule.step()
    except (TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "gradients" not in str(error):
            raise  # such as out of memory
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"from_torch: {type(running.optimizer).__name__} or its schedule needs more than gradients ({reason}); "
            f"use another one"
        ) from None
