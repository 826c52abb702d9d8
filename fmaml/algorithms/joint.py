"""Joint training, a baseline: train one network on all tasks together, then fine-tune it on each.

In training:    theta = argmin of sum_i L(theta, D_i^tr and D_i^ts), without adaptation
In testing:     phi_i = fine-tuning from theta, as in MAML        (the baseline of arXiv 1703.03400, 5.1)
"""

from collections.abc import Sequence

from torch import Tensor

from ..inner import inner_rule
from ..setting_types import Rate, Rule, Steps
from ..torch_fixes.loss_value import checked
from ..types import Algorithm, InnerRate, LossFn, Metrics, Params, Task
from ..unroll import unrolled


def joint(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
) -> Algorithm[Params]:
    """The baseline: train one network on all tasks together, fine-tune it on each at test time.

    Args:
        loss_fn, inner_lr, steps, only, inner: as in `fmaml.maml`; the inner steps fine-tune the network.

    Returns:
        The algorithm; its theta is the parameters.

    Source: arXiv 1703.03400, section 5.1.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.joint(loss_fn, inner_lr=0.01, steps=1)
    >>> theta, batch = model.init(torch.Generator().manual_seed(0)), fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1))
    >>> torch.equal(algorithm.loss(theta, fmaml.Task(batch, batch))[0], loss_fn(theta, batch))
    True
    """

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        support, query = (checked(loss_fn)(theta, batch) for batch in task)
        return (support + query) / 2, {"query_loss": query}

    fine_tuned: Algorithm[Params] = unrolled(loss_fn, inner_rule(inner, inner_lr), steps=steps, only=only)
    return fine_tuned._replace(loss=loss)
