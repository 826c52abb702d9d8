"""The optimizers and schedules of `torch.optim` as pure outer optimizers."""

# the types of torch.optim's states are unknown to pyright:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..pickling import picklable
from ..torch_fixes.grad_levels import is_differentiated
from ..tree import leaves, map_leaves
from ..types import Optimizer, Theta

MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], Any]


class TorchState(NamedTuple):
    """What an optimizer of torch and its schedule remember."""

    steps: Tensor  # int64: taken so far
    tensors: list[Tensor]  # such as averages of the gradients
    numbers: Tensor  # float64: such as learning rates, as the schedule has set them


@picklable
def from_torch(
    optimizer: Callable[..., torch.optim.Optimizer], *, scheduler: MakeScheduler | None = None, **settings: Any
) -> Optimizer:
    """An optimizer of `torch.optim`, with its schedule, as the outer optimizer.

    Every update is the step that the optimizer itself takes, on a copy of theta: bit for bit that of a loop with
    ``step()``, and nothing is changed in place.

    Args:
        optimizer: a class of `torch.optim`, such as ``torch.optim.AdamW`` or ``torch.optim.Muon``, or a function of the
            parameters.
        scheduler: optimizer -> a schedule of `torch.optim.lr_scheduler`, stepped after each update.
        settings: the optimizer's own, such as ``lr`` or ``fused``.

    Returns:
        An optimizer whose state is a tree of tensors.

    Raises:
        ValueError: the optimizer or the schedule needs more than gradients, such as a closure or a metric. From
            ``update``: it is being differentiated, which `fmaml.adam` and its siblings can be.

    >>> import torch, fmaml
    >>> optimizer, theta = fmaml.from_torch(torch.optim.SGD, lr=0.5), {"p": torch.tensor(1.0)}
    >>> optimizer.update({"p": torch.tensor(2.0)}, optimizer.init(theta), theta)[0]
    {'p': tensor(0.)}
    """

    def begin(theta: Theta) -> "Running":
        params = [p.detach().clone().requires_grad_() for p in leaves(theta)]
        made = optimizer(params, **settings)
        return Running(params, made, scheduler(made) if scheduler else None)

    places: dict[tuple[torch.Size, ...], Any] = {}  # by theta's shapes: what is remembered after a step, without values

    def after_a_step(theta: Theta) -> Running:
        running = begin(theta)
        take_step(running, [torch.zeros_like(p) for p in running.params])
        return running

    def places_of(theta: Theta) -> Any:
        shapes = tuple(p.shape for p in leaves(theta))
        if shapes not in places:
            places[shapes] = pytree.tree_map(without_values, after_a_step(theta).remembered())
        return places[shapes]

    def init(theta: Theta) -> TorchState:
        running = after_a_step(theta)  # before its first step an optimizer has no place for its averages
        tensors = [torch.zeros_like(tensor) for tensor in running.tensors()]
        return TorchState(torch.zeros((), dtype=torch.int64), tensors, torch.zeros_like(running.numbers()))

    def update(grads: Theta, state: TorchState, theta: Theta) -> tuple[Theta, TorchState]:
        if is_differentiated((grads, theta)):
            raise ValueError(
                "from_torch: a step of torch.optim has no derivative; use fmaml.adam, adamw, sgd or momentum"
            )
        running = begin(theta)
        if state.steps > 0:
            running.load(places_of(theta), state)
        take_step(running, leaves(grads))
        moved = iter([p.detach() for p in running.params])
        tensors = [tensor.clone() for tensor in running.tensors()]
        return map_leaves(lambda _: next(moved), theta), TorchState(state.steps + 1, tensors, running.numbers())

    return Optimizer(init, update)


class Running:
    """An optimizer of torch at work on parameters of its own."""

    def __init__(self, params: list[Tensor], optimizer: torch.optim.Optimizer, schedule: Any) -> None:
        self.params, self.optimizer, self.schedule = params, optimizer, schedule

    def remembered(self) -> dict[str, Any]:
        """All that both remember, as torch says it."""
        schedule = self.schedule.state_dict() if self.schedule else {}
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def tensors(self) -> list[Tensor]:
        """The tensors in it."""
        return [leaf for leaf in pytree.tree_leaves(self.remembered()) if isinstance(leaf, Tensor)]

    def numbers(self) -> Tensor:
        """The numbers in it, float64."""
        return torch.tensor(
            [leaf for leaf in pytree.tree_leaves(self.remembered()) if is_number(leaf)], dtype=torch.float64
        )

    def load(self, places: Any, state: TorchState) -> None:
        """Remember what ``state`` says, each number and tensor at its place."""
        tensors, numbers = iter(state.tensors), iter(state.numbers.tolist())

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return next(tensors).clone()
            if not is_number(leaf):
                return leaf
            number = next(numbers)
            return type(leaf)(number) if not isinstance(leaf, float) and number.is_integer() else number

        remembered = cast(dict[str, Any], pytree.tree_map(filled, places))
        self.optimizer.load_state_dict(remembered["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(remembered["schedule"])


def without_values(leaf: Any) -> Any:
    """The leaf, or if it is a tensor an empty one in its place."""
    return torch.empty(0) if isinstance(leaf, Tensor) else leaf


def is_number(leaf: Any) -> bool:
    """Whether it is a number of Python, or a truth value."""
    return isinstance(leaf, (int, float))


def take_step(running: Running, grads: list[Tensor]) -> None:
    """Take one step along the gradients; ValueError if that takes more than gradients."""
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
            f"take another one"
        ) from None
