"""From scratch: the baseline that learns nothing from other tasks.

phi_i = ``steps`` inner steps from the network's first, random parameters, which stay as they are (with no weight decay)
"""

from ..ranges import Natural, Rate, Rule
from ..tree import detach
from ..types import Algorithm, LossFn, Optimizer, Params, Task
from ..unroll import stepping, unrolled


def scratch(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
) -> Algorithm:
    """The baseline: train the random network on each task alone."""
    step = stepping(inner, inner_lr)
    walk = unrolled(loss_fn, lambda theta: step, steps=steps, first_order=True, only=only)

    def loss(theta: Params, task: Task) -> tuple:
        query = loss_fn(detach(walk.adapt(detach(theta), task.support)), task.query)
        nothing = sum(p.sum() for p in theta.values()) * 0  # a gradient of 0
        return nothing, {"query_loss": query}

    return walk._replace(loss=loss)
