"""What a call asks of torch: how many operations, and how much arithmetic. The same on every machine, busy or not."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..tree import T


class Work(NamedTuple):
    """``operations`` that torch launches, and floating-point operations in their products."""

    operations: int
    flop: int


class Operations(TorchDispatchMode):
    """Counts what torch launches while it is on; views launch nothing."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def with_work(call: Callable[[], T]) -> tuple[T, Work]:
    """The result of the call, and what it asked for."""
    with Operations() as operations, FlopCounterMode(display=False) as products:
        result = call()
    return result, Work(operations.count, products.get_total_flops())
