"""Batch norm by the statistics of a task's support set, so that a prediction does not depend on other queries.

In training each batch is normalised by its own mean and variance. A deployed network uses those of its support set.
`statistics_of` records them in one forward pass, in the order of the norms' calls. `with_statistics` supplies them in
the same order.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..losses import Apply
from ..types import Params


class Statistics(NamedTuple):
    """The mean and variance of each channel in one batch norm."""

    mean: Tensor  # [channels]
    variance: Tensor  # [channels]


Supply: TypeAlias = Callable[[Tensor], Statistics]  # x [n, channels, ...] -> the statistics to normalise it by
_supply: ContextVar[Supply | None] = ContextVar("statistics of batch norm", default=None)


def supplied_statistics(x: Tensor) -> Statistics | None:
    """The statistics for batch norm of x [n, channels, ...]; None: those of x itself."""
    if torch.compiler.is_dynamo_compiling():  # dynamo cannot read the variable; only training steps are compiled
        return None
    supply = _supply.get()
    return None if supply is None else supply(x)


def uses_own_statistics() -> bool:
    """Whether each batch norm uses the statistics of its own batch."""
    return _supply.get() is None


@torch.no_grad()
def statistics_of(apply: Apply, params: Params, x: Tensor) -> list[Statistics]:
    """The statistics of each batch norm in the forward pass of x [n, *shape]; empty without batch norms.

    >>> import torch, fmaml
    >>> from fmaml.torch_fixes.support_statistics import statistics_of
    >>> model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    >>> len(statistics_of(model.apply, model.init(torch.Generator()), torch.rand(5, 1, 28, 28)))
    4
    """
    found: list[Statistics] = []

    def record(x: Tensor) -> Statistics:
        if x.numel() <= x.shape[1]:
            raise ValueError(f"batch norm: needs several values per channel, got {list(x.shape)}; give more examples")
        axes = (0, *range(2, x.ndim))
        found.append(Statistics(x.mean(axes), x.var(axes, correction=0)))
        return found[-1]

    _call(record, apply, params, x)
    return found


def with_statistics(apply: Apply, statistics: Sequence[Statistics]) -> Apply:
    """``apply`` with these statistics in its batch norms, in the order of their calls.

    An output then depends only on its own example. Raises ValueError on use if the network has more or fewer norms.
    """

    def applied(params: Params, x: Tensor) -> Tensor:
        unused = list(reversed(statistics))

        def supply(x: Tensor) -> Statistics:
            if not unused:
                raise ValueError(f"batch norm: the network has more norms than the {len(statistics)} with statistics")
            return unused.pop()

        output = _call(supply, apply, params, x)
        if unused:
            raise ValueError(f"batch norm: {len(unused)} of {len(statistics)} statistics were not used by the network")
        return output

    return applied


@contextlib.contextmanager
def own_statistics() -> Generator[None]:
    """Let each batch norm use the statistics of its own batch, within this context."""
    token = _supply.set(None)
    try:
        yield
    finally:
        _supply.reset(token)


def _call(supply: Supply, apply: Apply, params: Params, x: Tensor) -> Tensor:
    token = _supply.set(supply)
    try:
        return apply(params, x)
    finally:
        _supply.reset(token)
