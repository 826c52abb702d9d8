"""Reptile (Nichol, Achiam and Schulman, arXiv 1803.02999), with a batch of tasks.

phi_i = ``steps`` updates of theta on D_i^tr;    theta' = theta + epsilon * mean_i (phi_i - theta)

The loss 1/2 |theta - stop(phi_i)|^2 has the gradient theta - phi_i, so epsilon is the rate of `fmaml.sgd`.
"""

from collections.abc import Iterator
from itertools import count, islice
from math import gcd

import torch
from torch import Tensor

from ..derivative_order import detach_result, detach_theta, with_gradient
from ..inner import last, walk
from ..pickling import picklable
from ..ranges import Count, PositiveSteps, Rate, Rule
from ..tree import map_leaves, squared_norm, take
from ..types import Algorithm, Batch, InnerRate, LossFn, Metrics, Params, Task
from ..unroll import stepping

GOLDEN_RATIO = 0.618  # strides of about this fraction of n spread consecutive indices evenly over range(n)


@picklable
def reptile(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: PositiveSteps,
    minibatch: Count | None = None,
    inner: Rule = "sgd",
) -> Algorithm[Params]:
    """Move theta towards the parameters adapted to each task; no second derivative, and no query set in training.

    Args:
        steps: inner steps, 1 or more.
        minibatch: how many examples of the support set an inner step uses, all where it has no more; None: all of
            them. With a number, tasks must all be of one size, without padding.
        loss_fn, inner_lr, inner: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. The loss is a surrogate with the right gradient and no meaning
        of its own.

    Source: arXiv 1803.02999.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    >>> algorithm = fmaml.reptile(loss_fn, inner_lr=0.01, steps=5)
    >>> theta, batch = model.init(torch.Generator().manual_seed(0)), fmaml.Batch(torch.ones(10, 1), torch.zeros(10, 1))
    >>> tasks = fmaml.Task(*(fmaml.Batch(*(part[None] for part in batch)) for _ in range(2)))  # one task
    >>> grads, phi = fmaml.meta_grad(algorithm, theta, tasks)[0], algorithm.adapt(theta, batch)
    >>> torch.allclose(grads["layer1.weight"], theta["layer1.weight"] - phi["layer1.weight"])
    True
    """
    step = stepping(inner, inner_lr)

    def inner_loop(theta: Params, support: Batch, steps: int) -> Iterator[Params]:
        if steps < 0:
            raise ValueError(f"steps = {steps}: must be 0 or more")
        return walk(loss_fn, theta, islice(minibatches(support, minibatch), steps), step, first_order=True)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return list(inner_loop(theta, support, steps))

    def adapt(theta: Params, support: Batch) -> Params:
        return last(inner_loop(theta, support, steps))

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        phi = detach_result(adapt(detach_theta(theta, "reptile"), task.support), "reptile")
        gap = map_leaves(lambda p, q: p - q, theta, phi)
        return with_gradient(squared_norm(gap) / 2, gap, theta), {"query_loss": loss_fn(phi, task.query)}

    return Algorithm(dict, adapt, loss, phis)


def minibatches(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Yield batches of ``size`` examples endlessly; every example is used once before any is used again.

    Each batch is spread over all of ``batch``, in which neighbours are often of the same class; without a ``size``, or
    where it has no more examples, it is all of it. Raises ValueError if ``size`` is below 1.
    """
    n = len(batch.y)
    if size is not None and size < 1:
        raise ValueError(f"minibatch = {size}: must be 1 or more, or None for all examples")
    if size is None or size >= n:
        while True:  # torch 2.14's compiler cannot close a generator that is left within itertools.repeat
            yield batch
    stride = next(s for s in count(max(1, round(GOLDEN_RATIO * n))) if gcd(s, n) == 1)
    for first in count(0, size):
        # made on the device, which would wait for a copy
        indices = torch.arange(first, first + size, device=batch.y.device) * stride % n
        yield take(batch, indices)
