"""Training from scratch: a baseline that learns nothing from other tasks.

phi_i = ``steps`` inner steps from the network's random initial parameters, which stay fixed (without weight decay)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..inner import inner_rule
from ..setting_types import Rate, Rule, Steps
from ..tree import detach
from ..types import Algorithm, InnerRate, LossFn, Metrics, Params, Task
from ..unroll import unrolled


def scratch(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: Steps,
    only: Sequence[str] = ("*",),
    inner: Rule = "sgd",
) -> Algorithm[Params]:
    """The baseline: train a randomly initialised network on each task alone.

    Args:
        loss_fn, inner_lr, steps, only, inner: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters, and its meta-gradient is 0.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.scratch(loss_fn, inner_lr=0.01, steps=5)
    >>> theta, batch = model.init(torch.Generator().manual_seed(0)), fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1))
    >>> float(algorithm.loss(theta, fmaml.Task(batch, batch))[0]) == 0
    True
    """
    alpha = inner_rule(inner, inner_lr)
    trained: Algorithm[Params] = unrolled(loss_fn, alpha, steps=steps, first_order=True, only=only)

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        query = loss_fn(detach(trained.adapt(detach(theta), task.support)), task.query)
        zero = torch.stack([p.sum() for p in theta.values()]).sum() * 0  # its gradient is 0
        return zero, {"query_loss": query}

    return trained._replace(loss=loss)
