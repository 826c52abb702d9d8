"""Batch norm by stored statistics, as parameters ``NORM.running_mean`` and ``NORM.running_var``.

They are constants to every gradient, so each feature depends on its own example alone. `fmaml.pretrain` trains by the
statistics of each batch, and lets the stored ones follow.
"""

from contextvars import ContextVar

from torch import Tensor

from ..losses import Apply
from ..types import Params
from .norms import batch_norm, by_statistics
from .support_statistics import Statistics

NAMES = (".running_mean", ".running_var")


def is_statistic(name: str) -> bool:
    """Whether a parameter of this name is a stored statistic."""
    return name.endswith(NAMES)


_found: ContextVar[Params | None] = ContextVar("statistics of the batch", default=None)


def stored_norm(params: Params, name: str, x: Tensor) -> Tensor:
    """Batch norm by stored statistics, or within `with_batch_statistics` by those of the batch x [n, channels, ...]."""
    scale, shift = params[f"{name}.weight"], params[f"{name}.bias"]
    mean, variance = f"{name}.running_mean", f"{name}.running_var"
    found = _found.get()
    if found is None:
        stored = Statistics(params[mean].detach(), params[variance].detach())
        return by_statistics(x, stored, scale, shift)
    axes, constant = (0, *range(2, x.ndim)), x.detach()
    found |= {mean: constant.mean(axes), variance: constant.var(axes)}
    return batch_norm(x, scale, shift)


def with_batch_statistics(apply: Apply, params: Params, x: Tensor) -> tuple[Tensor, Params]:
    """The output with each norm="stored" by the statistics of this batch, and these statistics, without gradient."""
    found: Params = {}
    if not any(is_statistic(name) for name in params):
        return apply(params, x), found
    token = _found.set(found)
    try:
        return apply(params, x), found
    finally:
        _found.reset(token)
