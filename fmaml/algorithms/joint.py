"""Joint training: one network for all tasks at once, then fine-tuned on each. What meta-learning is compared with.

In training:    min over theta of sum_i L(theta, D_i^tr and D_i^ts)        no task is adapted to
In testing:     phi_i as in MAML, from that theta                          (the baseline of arXiv 1703.03400, 5.1)
"""

from ..ranges import Natural, Rate, Rule
from ..types import Algorithm, LossFn, Metrics, Optimizer, Params, Task
from ..unroll import stepping, unrolled


def joint(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Natural,
    only: tuple[str, ...] = ("*",),
    inner: Rule = "sgd",
) -> Algorithm:
    """The baseline: train one network on all tasks together, fine-tune it on each at test time."""
    step = stepping(inner, inner_lr)

    def loss(theta: Params, task: Task) -> tuple:
        query = loss_fn(theta, task.query)
        metrics: Metrics = {"query_loss": query}
        return (loss_fn(theta, task.support) + query) / 2, metrics

    return unrolled(loss_fn, lambda theta: step, steps=steps, only=only)._replace(loss=loss)
