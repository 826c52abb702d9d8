"""Reptile (Nichol, Achiam and Schulman, arXiv 1803.02999), on batches of tasks.

phi_i = ``steps`` updates of theta on D_i^tr;    theta' = theta + epsilon * mean_i (phi_i - theta)

The loss 1/2 |theta - stop(phi_i)|^2 has the gradient theta - phi_i, so epsilon is the learning rate of `fmaml.sgd`.
"""

from collections.abc import Iterator
from itertools import count
from math import gcd

import torch
from torch import Tensor

from ..inner import begin, check_steps, inner_rule, inner_step
from ..setting_types import Count, PositiveSteps, Rate, Rule
from ..torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from ..tree import map_leaves, squared_norm, take
from ..types import Algorithm, Batch, InnerRate, LossFn, Metrics, Params, Task

GOLDEN_RATIO = 0.618  # strides of about this fraction of n spread consecutive indices evenly over range(n)


def reptile(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: PositiveSteps,
    minibatch: Count | None = None,
    inner: Rule = "sgd",
) -> Algorithm[Params]:
    """Move theta towards the parameters adapted to each task, without second derivatives or a query set.

    Args:
        steps: inner steps, 1 or more.
        minibatch: the number of support examples in each inner step, or all if there are fewer; None: all. With a
            number, all tasks must have the same size, without padding.
        loss_fn, inner_lr, inner: as in `fmaml.maml`.

    Returns:
        The algorithm; its theta is the parameters. The loss is a surrogate: only its gradient has a meaning.

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
    alpha = inner_rule(inner, inner_lr)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        found, (names, state) = [theta], begin(theta, alpha)
        for part in minibatches(support, minibatch, steps):
            phi, state = inner_step(loss_fn, found[-1], state, part, alpha, names, first_order=True)
            found.append(phi)
        return found

    def adapt(theta: Params, support: Batch) -> Params:
        phi, (names, state) = theta, begin(theta, alpha)
        for part in minibatches(support, minibatch, steps):
            phi, state = inner_step(loss_fn, phi, state, part, alpha, names, first_order=True)
        return phi

    def loss(theta: Params, task: Task) -> tuple[Tensor, Metrics]:
        phi = detach_result(adapt(detach_theta(theta, "reptile"), task.support), "reptile")
        gap = map_leaves(lambda p, q: p - q, theta, phi)
        return with_gradient(squared_norm(gap) / 2, gap, theta), {"query_loss": loss_fn(phi, task.query)}

    return Algorithm(dict, adapt, loss, phis)


def minibatches(batch: Batch, size: int | None, steps: int) -> Iterator[Batch]:
    """Yield ``steps`` batches of ``size`` examples; every example is used once before any is used again.

    Each batch is spread over all of ``batch``, because neighbours are often of the same class. It is all of ``batch``
    if ``size`` is None or at least the number of examples. Raises ValueError if ``size`` is below 1 or ``steps`` below
    0.
    """
    check_steps(steps)
    if size is not None and size < 1:
        raise ValueError(f"minibatch = {size}: must be 1 or more, or None for all examples")
    n = len(batch.y)
    stride = spreading(n)
    for step in range(steps):
        if size is None or size >= n:
            yield batch
            continue
        # computed on the device, which would have to wait for a copy
        indices = torch.arange(step * size, (step + 1) * size, device=batch.y.device) * stride % n
        yield take(batch, indices)


def spreading(n: int) -> int:
    """A stride coprime to ``n``: its multiples visit every index once, each far from the one before."""
    return next(stride for stride in count(max(1, round(GOLDEN_RATIO * n))) if gcd(stride, n) == 1)
