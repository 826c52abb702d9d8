"""Meta-testing: a metric of every task after every inner step."""

from typing import Any

import torch
from torch.func import vmap

from .outer import check_call, chunks, loops_over_tasks, one_by_one
from .setting_types import Batching
from .torch_fixes.loss_value import kind
from .torch_fixes.own_code import in_own_code
from .tree import concat, map_leaves, stack
from .types import Algorithm, Batch, MetricFn, Params, Task, ThetaT


@torch.no_grad()  # saves the graph of a meta-gradient; torch.func.grad works inside nonetheless
def evaluate(
    algorithm: Algorithm[ThetaT],
    metric_fn: MetricFn,
    theta: ThetaT,
    tasks: Task,
    *,
    steps: int | None = None,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> Any:
    """Meta-testing: ``metric_fn(phi_k, task)`` for every task and inner step k.

    Args:
        algorithm: such as `fmaml.maml` returns.
        metric_fn: (params, task) -> scalar, or a dict of scalars; such as `fmaml.transductive` returns.
        theta: the meta-parameters.
        tasks: stacked tasks, every tensor [tasks, ...].
        steps: the number of inner steps; None: as many as in training.
        batching, chunk_size: see `meta_grad`.

    Returns:
        [tasks, steps + 1], or a dict of such tensors. An algorithm without a trajectory gives one column, for the
        adapted parameters.

    Raises:
        ValueError: as `meta_loss`.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> y = torch.tensor([[1.0], [3.0]])
    >>> tasks = fmaml.Task(fmaml.Batch(y, y), fmaml.Batch(y, y))
    >>> algorithm = fmaml.maml(loss_fn, inner_lr=0.5, steps=1)
    >>> fmaml.evaluate(algorithm, lambda phi, task: loss_fn(phi, task.query), {"p": torch.tensor(1.0)}, tasks, steps=2)
    tensor([[0.0000, 0.0000, 0.0000],
            [2.0000, 0.5000, 0.1250]])
    """

    def metric_by_step(task: Task) -> Any:
        phis = trajectory_of(algorithm, theta, task.support, steps)
        judged = [algorithm.predicts(task, k) if algorithm.predicts else task for k in range(len(phis))]
        scores = [metric_fn(phi, query) for phi, query in zip(phis, judged, strict=True)]
        return stack([map_leaves(as_score, score) for score in scores])

    check_call(algorithm, theta)
    looped = loops_over_tasks(batching, tasks)
    every_metric = one_by_one(metric_by_step) if looped else vmap(metric_by_step)
    with in_own_code([algorithm.loss, metric_fn], theta, tasks, vmapped=not looped, metric=True):
        return concat([every_metric(part) for part in chunks(tasks, batching, chunk_size)])


def as_score(value: Any) -> torch.Tensor:
    """The result of a metric as a tensor; ValueError if it is no number."""
    try:
        return torch.as_tensor(value)
    except (TypeError, RuntimeError):
        raise ValueError(
            f"the metric returns {kind(value)}: must be a scalar tensor, a number, or a dict of them by name; "
            f"end it with `return score`"
        ) from None


def trajectory_of(
    algorithm: Algorithm[ThetaT], theta: ThetaT, support: Batch, steps: int | None = None
) -> list[Params]:
    """[phi_0, .., phi_steps], or only the adapted parameters if the algorithm has no trajectory."""
    if algorithm.trajectory is None:
        return [algorithm.adapt(theta, support)]
    return algorithm.trajectory(theta, support) if steps is None else algorithm.trajectory(theta, support, steps)
