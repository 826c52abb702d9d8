"""Running statistics of norms: a part of theta that follows the batches, whatever the optimizer of the rest.

The gradient of a statistic is its distance to that of the batch. A step along it, with a fixed share, is the moving
average of batch norm (arXiv 1502.03167, section 3.1).
"""

from typing import Any, cast

from ..setting_types import Unit
from ..torch_fixes.stored_norm import is_statistic
from ..types import Optimizer, OptState, Theta


def track_statistics(optimizer: Optimizer, share: Unit = 0.1) -> Optimizer:
    """Let running statistics in theta follow their gradient by gradient descent; the optimizer steps all the rest.

    Args:
        optimizer: any outer optimizer.
        share: the weight of the last batch in the moving average, from 0 to 1.

    Returns:
        An optimizer with the state of ``optimizer``. Without running statistics it has the same steps.

    Source: arXiv 1502.03167, section 3.1.

    >>> import torch, fmaml
    >>> optimizer = fmaml.track_statistics(fmaml.sgd(1.0), share=0.5)
    >>> theta = {"norm.weight": torch.tensor(1.0), "norm.running_mean": torch.tensor(0.0)}
    >>> grads = {"norm.weight": torch.tensor(0.25), "norm.running_mean": torch.tensor(-2.0)}  # the batch has mean 2
    >>> optimizer.step(grads, optimizer.init(theta), theta)[0]
    {'norm.weight': tensor(0.7500), 'norm.running_mean': tensor(1.)}
    """

    def step(grads: Theta, state: OptState, theta: Theta) -> tuple[Theta, OptState]:
        after, state = optimizer.step(grads, state, theta)
        return _tracked(theta, grads, after, share), state

    return Optimizer(optimizer.init, step)


def _tracked(theta: Any, grads: Any, after: Any, share: float) -> Any:
    """``after`` with the statistics replaced, in the params dict at any depth of dicts."""
    if not isinstance(theta, dict):
        return after
    parts = cast(dict[str, Any], theta)
    return {
        name: value - share * grads[name] if is_statistic(name) else _tracked(value, grads[name], after[name], share)
        for name, value in parts.items()
    }
