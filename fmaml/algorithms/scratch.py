"""From scratch: the baseline that learns nothing from other tasks.

phi_i = ``steps`` inner steps from the network's first, random parameters, which stay as they are
"""

from ..inner import trajectory
from ..ranges import Natural, Rate
from ..tree import detach
from ..types import Algorithm, Batch, LossFn, Optimizer, Params, Task


def scratch(loss_fn: LossFn, *, inner_lr: Rate | Optimizer, steps: Natural) -> Algorithm:
    """The baseline: train the random network on each task alone."""

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return trajectory(loss_fn, theta, support, inner_lr, steps=steps, first_order=True)

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    def loss(theta: Params, task: Task) -> tuple:
        query = loss_fn(detach(adapt(detach(theta), task.support)), task.query)
        nothing = sum(p.sum() for p in theta.values()) * 0  # a gradient of 0
        return nothing, {"query_loss": query}

    return Algorithm(dict, adapt, loss, phis)
