"""The outer loop: the mean query loss over a meta-batch of tasks, its gradient, one step (arXiv 1703.03400, eq. 1).

`meta_step` knows no algorithm: it is handed one, and takes gradient, mean and vmap of ``algorithm.loss``. The gradient
stands inside the vmap, so that each chunk of tasks frees its graph before the next begins.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import grad, vmap

from .tree import add, concat, detach, leading, map_leaves, take
from .types import Algorithm, Batch, LossFn, MetaState, MetricFn, Metrics, Optimizer, Params, Task, Theta

Batching = Literal["vmap", "loop", "auto"]
LARGE = 1_000_000  # numbers in a task: 5-way 1-shot with 15 queries has 1,693,440 at 84x84x3, 62,720 at 28x28


def query_loss(
    loss_fn: LossFn, adapt: Callable[[Theta, Batch], Params], theta: Theta, task: Task
) -> tuple[Tensor, Metrics]:
    """One task's loss, L(phi, D^ts) with phi = adapt(theta, D^tr)."""
    phi = adapt(theta, task.support)
    loss = loss_fn(phi, task.query)
    return loss, {"query_loss": loss}


def meta_loss(
    algorithm: Algorithm,
    theta: Theta,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> tuple[Tensor, Metrics]:
    """The mean of ``algorithm.loss`` over the tasks, and the means of its metrics.

    Of an algorithm whose loss changes with the meta-step, hand over ``algorithm.at(step)``.
    """
    return _mean(partial(algorithm.loss, theta), tasks, batching, chunk_size)


def meta_grad(
    algorithm: Algorithm,
    theta: Theta,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> tuple[Theta, Metrics]:
    """The gradient of `meta_loss` with respect to theta, of theta's shape, and the means of the metrics.

    ``batching`` is "vmap" (all tasks of a chunk in one call), "loop" (one after the other) or "auto" (the fastest
    known for the device). ``chunk_size`` tasks are held in memory at a time; by default all of them.
    """
    task_grad = grad(algorithm.loss, has_aux=True)
    return _mean(partial(task_grad, theta), tasks, batching, chunk_size)


def meta_step(
    algorithm: Algorithm,
    optimizer: Optimizer,
    state: MetaState,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
    reduce: Callable[[Any], Any] = lambda grads_and_metrics: grads_and_metrics,
) -> tuple[MetaState, Metrics]:
    """One outer step: theta' = theta - beta * mean_i grad L_i, by ``optimizer``.

    ``reduce`` maps (grads, metrics) to their means over all processes; alone, it is the identity.
    """
    algorithm = at(algorithm, state.step)
    grads, metrics = reduce(meta_grad(algorithm, state.theta, tasks, batching=batching, chunk_size=chunk_size))
    theta, opt_state = optimizer.update(grads, state.opt_state, state.theta)
    return MetaState(theta, opt_state, state.step + 1), metrics


def at(algorithm: Algorithm, step: int) -> Algorithm:
    """The algorithm as it is at a meta-step."""
    return algorithm if algorithm.at is None else algorithm.at(step)


def init_state(algorithm: Algorithm, optimizer: Optimizer, params: Params) -> MetaState:
    """The state before the first meta-step, from a model's initial parameters."""
    theta = detach(algorithm.init(params))
    return MetaState(theta, optimizer.init(theta), 0)


@torch.no_grad()  # torch.func.grad still sees inside; what this saves is the graph of a meta-gradient nobody asks for
def evaluate(
    algorithm: Algorithm,
    metric_fn: MetricFn,
    theta: Theta,
    tasks: Task,
    *,
    steps: int | None = None,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> Any:
    """``metric_fn(phi_k, task)`` for every task and inner step k: [tasks, steps + 1] (a tree of them if it gives one).

    ``steps`` may differ from the number trained with, which None stands for. An algorithm without a trajectory gives
    one column: the adapted parameters.
    """
    rows = partial(_trajectory_metrics, algorithm, metric_fn, theta, steps)
    return concat([rows_of_chunk for rows_of_chunk in _per_chunk(rows, tasks, batching, chunk_size)])


def _trajectory_metrics(algorithm: Algorithm, metric_fn: MetricFn, theta: Theta, steps: int | None, task: Task) -> Any:
    rows = [metric_fn(phi, task) for phi in _phis(algorithm, theta, task.support, steps)]
    return map_leaves(lambda *values: torch.stack(values), *rows)


def _phis(algorithm: Algorithm, theta: Theta, support: Batch, steps: int | None) -> list[Params]:
    if algorithm.trajectory is None:
        return [algorithm.adapt(theta, support)]
    return algorithm.trajectory(theta, support) if steps is None else algorithm.trajectory(theta, support, steps)


def _mean(fn: Callable[[Task], Any], tasks: Task, batching: Batching, chunk_size: int | None) -> Any:
    """The mean over the tasks of a function of one task: a running sum, so that chunks leave nothing behind."""
    count = leading(tasks)
    sums = (map_leaves(lambda leaf: leaf.sum(0), chunk) for chunk in _per_chunk(fn, tasks, batching, chunk_size))
    total = next(sums)
    for part in sums:
        total = add(total, part)
    return map_leaves(lambda leaf: leaf / count, total)


def loops(batching: Batching, tasks: Task) -> bool:
    """Whether it is one task after the other."""
    return batching == "loop" or (batching == "auto" and loop_wins(tasks))


def loop_wins(tasks: Task) -> bool:
    """Whether one task after the other is known to be faster (benchmarks/vmap_vs_loop.py).

    On a CPU it is for one task, and for large ones: at 84x84x3 it wins, 32x32x3 is near even, 28x28x1 is not for it.
    """
    shape, device = tasks.support.x.shape, tasks.support.x.device
    images = shape[1] + tasks.query.x.shape[1]
    return device.type == "cpu" and (shape[0] == 1 or images * math.prod(shape[2:]) > LARGE)


def _per_chunk(fn: Callable[[Task], Any], tasks: Task, batching: Batching, chunk_size: int | None) -> Iterator[Any]:
    """``fn`` of each task, stacked along a leading axis, one chunk of tasks after the other."""
    if batching not in ("vmap", "loop", "auto"):
        raise ValueError(f"batching = {batching!r}: must be 'vmap', 'loop' or 'auto'")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size = {chunk_size}: must be at least 1, or None for all tasks at once")
    count = leading(tasks)
    if count == 0:
        raise ValueError("no tasks: the leading axis of every tensor has length 0")
    if loops(batching, tasks):
        yield from (map_leaves(lambda leaf: leaf[None], fn(take(tasks, i))) for i in range(count))
        return
    size = chunk_size or count
    yield from (vmap(fn)(take(tasks, slice(first, first + size))) for first in range(0, count, size))
