"""Reptile (Nichol, Achiam and Schulman, arXiv 1803.02999), with a batch of tasks.

phi_i = ``steps`` updates of theta on D_i^tr;    theta' = theta + epsilon * mean_i (phi_i - theta)

The loss 1/2 |theta - stop(phi_i)|^2 has the gradient theta - phi_i: with `fmaml.sgd` its rate is epsilon.
"""

from collections.abc import Iterator
from itertools import count, islice
from math import gcd

import torch

from ..inner import walk
from ..ranges import Count, Rate, Rule
from ..tree import detach, leaves, map_leaves
from ..types import Algorithm, Batch, LossFn, Optimizer, Params, Task
from ..unroll import stepping

GOLDEN = 0.618  # of the way around: numbers of turns by it fall far from each other


def reptile(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | Optimizer,
    steps: Count,
    minibatch: Count | None = None,
    inner: Rule = "sgd",
) -> Algorithm:
    """Pull theta towards what each task makes of it; no second derivative, and no query set in training.

    Each inner step sees ``minibatch`` examples of the support set, by default all of them; tasks are of one size then.
    """
    step = stepping(inner, inner_lr)

    def phis(theta: Params, support: Batch, steps: int = steps) -> list[Params]:
        return list(walk(loss_fn, theta, islice(minibatches(support, minibatch), steps), step, first_order=True))

    def adapt(theta: Params, support: Batch) -> Params:
        return phis(theta, support)[-1]

    def loss(theta: Params, task: Task) -> tuple:
        phi = detach(adapt(detach(theta), task.support))
        gaps = map_leaves(lambda p, q: (p - q).square().sum(), theta, phi)
        return torch.stack(leaves(gaps)).sum() / 2, {"query_loss": loss_fn(phi, task.query)}

    return Algorithm(dict, adapt, loss, phis)


def minibatches(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Without end, ``size`` examples at a time; each comes once before any comes again, neighbours far apart."""
    n = len(batch.y)
    if size is not None and not 0 < size <= n:
        raise ValueError(f"minibatch = {size}: the support set has {n} examples; give 1 to {n}, or None for all")
    stride = next(s for s in count(max(1, round(GOLDEN * n))) if gcd(s, n) == 1)
    for first in count(0, size or n):
        rows = [(first + i) * stride % n for i in range(size or n)]
        yield batch if size is None else Batch(batch.x[rows], batch.y[rows])
