"""Reptile (Nichol, Achiam and Schulman, arXiv 1803.02999), on batches of tasks.

phi_i = ``steps`` updates of theta on D_i^tr;    theta' = theta + epsilon * mean_i (phi_i - theta)

The loss 1/2 |theta - stop(phi_i)|^2 has the gradient theta - phi_i, so epsilon is the learning rate of `fmaml.sgd`.

The authors' code keeps the second moments of its inner Adam from task to task. With ``carry_state`` the state of the
inner optimizer is a part of theta and moves as the parameters do, towards its mean after the tasks.
"""

from collections.abc import Iterator
from functools import reduce
from itertools import accumulate, count
from math import gcd
from typing import Any

import torch
from torch import Tensor

from ..inner import begin, check_steps, inner_rule, inner_step
from ..setting_types import Count, PositiveSteps, Rate, Rule
from ..torch_fixes.grad_levels import detach_result, detach_theta, with_gradient
from ..tree import map_leaves, squared_norm, take
from ..types import Algorithm, Batch, InnerRate, LossFn, Metrics, OptState, Params, Task
from ..unroll import WithParams

GOLDEN_RATIO = 0.618  # strides of about this fraction of n spread consecutive indices evenly over range(n)


class WithState(WithParams):
    """theta with the state of the inner optimizer."""

    state: OptState


def reptile(
    loss_fn: LossFn,
    *,
    inner_lr: Rate | InnerRate,
    steps: PositiveSteps,
    minibatch: Count | None = None,
    inner: Rule = "sgd",
    carry_state: bool = False,
) -> Algorithm[Any]:
    """Move theta towards the parameters adapted to each task, without second derivatives or a query set.

    Args:
        steps: inner steps, 1 or more.
        minibatch: the number of support examples in each inner step, or all if there are fewer; None: all. With a
            number, all tasks must have the same size, without padding.
        carry_state: begin each task, also in testing, with the state of the inner optimizer that training has reached.
            Otherwise the state starts anew, and the first step of Adam is ``inner_lr`` times the gradient's sign.
        loss_fn, inner_lr, inner: as in `fmaml.maml`.

    Returns:
        The algorithm. Its theta is the parameters, or with ``carry_state`` {"params": .., "state": ..}. The loss is a
        surrogate: only its gradient has a meaning.

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

    def whole(theta: Any) -> WithState:
        return theta if carry_state else {"params": theta, "state": begin(theta, alpha)[1]}

    def step(reached: WithState, part: Batch) -> WithState:
        phi, state = reached["params"], reached["state"]
        phi, state = inner_step(loss_fn, phi, state, part, alpha, tuple(phi), first_order=True)
        return {"params": phi, "state": state}

    def after(theta: Any, support: Batch) -> WithState:
        return reduce(step, minibatches(support, minibatch, steps), whole(theta))

    def phis(theta: Any, support: Batch, steps: int = steps) -> list[Params]:
        return [
            reached["params"]
            for reached in accumulate(minibatches(support, minibatch, steps), step, initial=whole(theta))
        ]

    def adapt(theta: Any, support: Batch) -> Params:
        return after(theta, support)["params"]

    def loss(theta: Any, task: Task) -> tuple[Tensor, Metrics]:
        reached = detach_result(after(detach_theta(theta, "reptile"), task.support), "reptile")
        gap = map_leaves(torch.sub, theta, reached if carry_state else reached["params"])
        query = loss_fn(reached["params"], task.query)
        return with_gradient(squared_norm(gap) / 2, gap, theta), {"query_loss": query}

    def init(params: Params) -> WithState:
        return {"params": dict(params), "state": begin(params, alpha)[1]}

    return Algorithm(init if carry_state else dict, adapt, loss, phis)


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
