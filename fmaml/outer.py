"""The outer loop: the mean query loss over a meta-batch, its gradient, and one step (arXiv 1703.03400, equation 1).

`meta_step` works with any algorithm: it applies gradient, vmap and mean to ``algorithm.loss``. The gradient is taken
inside the vmap, so each chunk of tasks frees its graph before the next begins.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

from torch import Tensor
from torch.func import vmap

from .setting_types import Batching
from .torch_fixes.grad_levels import grad
from .torch_fixes.loss_value import checked
from .torch_fixes.own_code import in_own_code
from .tree import T, add, detach, leading, leaves, map_leaves, take
from .types import Algorithm, Batch, LossFn, MetaState, Metrics, Optimizer, Params, Task, Theta, ThetaT

GradsAndMetrics: TypeAlias = tuple[Theta, Metrics]


def query_loss(
    loss_fn: LossFn, adapt: Callable[[ThetaT, Batch], Params], theta: ThetaT, task: Task
) -> tuple[Tensor, Metrics]:
    """One task's loss, L(phi, D^ts) with phi = adapt(theta, D^tr).

    Args:
        loss_fn: (params, batch) -> scalar.
        adapt: (theta, support) -> phi.
        theta: the meta-parameters.
        task: one task, not stacked.

    Returns:
        The loss, a scalar, and the metrics {"query_loss": the same scalar}.

    Source: arXiv 1703.03400, the summand of equation 1.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return (params["p"] - batch.y).square().mean()
    >>> task = fmaml.Task(*(fmaml.Batch(torch.zeros(1), torch.tensor([y])) for y in (1.0, 3.0)))
    >>> float(fmaml.query_loss(loss_fn, lambda theta, support: theta, {"p": torch.tensor(1.0)}, task)[0])
    4.0
    """
    phi = adapt(theta, task.support)
    loss = loss_fn(phi, task.query)
    return loss, {"query_loss": loss}


def meta_loss(
    algorithm: Algorithm[ThetaT],
    theta: ThetaT,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> tuple[Tensor, Metrics]:
    """The meta-objective: the mean of ``algorithm.loss`` over tasks.

    Args:
        algorithm: such as `fmaml.maml` returns. If its loss depends on the meta-step, give ``algorithm.at(step)``.
        theta: the meta-parameters, as ``algorithm.init`` returns them.
        tasks: stacked tasks, every tensor [tasks, ...].
        batching, chunk_size: see `meta_grad`.

    Returns:
        The mean loss, a scalar, and the means of the metrics. The loss may be a surrogate; ``query_loss`` is always
        the true mean query loss.

    Raises:
        ValueError: an unknown ``batching``, a ``chunk_size`` below 1, no tasks, or tensors with different numbers of
            tasks.

    Source: arXiv 1703.03400, equation 1, as a mean.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> y = torch.tensor([[1.0], [3.0]])  # two tasks of one example
    >>> tasks = fmaml.Task(fmaml.Batch(y, y), fmaml.Batch(y, y))
    >>> algorithm = fmaml.maml(loss_fn, inner_lr=0.5, steps=1)
    >>> float(fmaml.meta_loss(algorithm, {"p": torch.tensor(0.0)}, tasks)[0])
    0.625
    """
    check_call(algorithm, theta)
    task_loss, looped = partial(checked(algorithm.loss, has_aux=True), theta), loops_over_tasks(batching, tasks)
    every_loss = one_by_one(task_loss) if looped else vmap(task_loss)
    with in_own_code([algorithm.loss], theta, tasks, vmapped=not looped):
        return mean_over_chunks(every_loss, chunks(tasks, batching, chunk_size))


def meta_grad(
    algorithm: Algorithm[ThetaT],
    theta: ThetaT,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
) -> tuple[ThetaT, Metrics]:
    """The gradient of `meta_loss` with respect to theta: the outer gradient.

    Args:
        algorithm: such as `fmaml.maml` returns.
        theta: the meta-parameters.
        tasks: stacked tasks, every tensor [tasks, ...].
        batching: "vmap" (all tasks of a chunk in one call), "loop" (one task after the other) or "auto" (the faster
            one as measured).
        chunk_size: the number of tasks in memory at a time; None: all.

    Returns:
        The gradient, with theta's tree and shapes, and the means of the metrics.

    Raises:
        ValueError: as `meta_loss`.

    Source: arXiv 1703.03400, equation 1, differentiated.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> y = torch.tensor([[1.0], [3.0]])
    >>> tasks = fmaml.Task(fmaml.Batch(y, y), fmaml.Batch(y, y))
    >>> algorithm = fmaml.maml(loss_fn, inner_lr=0.5, steps=1)
    >>> fmaml.meta_grad(algorithm, {"p": torch.tensor(0.0)}, tasks)[0]  # mean of (1 - 0.5)^2 (p - y)
    {'p': tensor(-0.5000)}
    """
    check_call(algorithm, theta)
    task_grad, looped = partial(grad(algorithm.loss, has_aux=True), theta), loops_over_tasks(batching, tasks)
    every_grad = one_by_one(task_grad) if looped else vmap(task_grad)
    with in_own_code([algorithm.loss], theta, tasks, vmapped=not looped):
        return mean_over_chunks(every_grad, chunks(tasks, batching, chunk_size))


def _identity(grads_and_metrics: GradsAndMetrics) -> GradsAndMetrics:
    return grads_and_metrics


def meta_step(
    algorithm: Algorithm[Any],
    optimizer: Optimizer,
    state: MetaState,
    tasks: Task,
    *,
    batching: Batching = "vmap",
    chunk_size: int | None = None,
    reduce: Callable[[GradsAndMetrics], GradsAndMetrics] = _identity,
) -> tuple[MetaState, Metrics]:
    """One outer step: theta' = theta - beta * mean_i grad L_i, by ``optimizer``.

    Args:
        algorithm: such as `fmaml.maml` returns.
        optimizer: such as `fmaml.adam` returns; it holds beta.
        state: from `init_state`, or from the previous step.
        tasks: stacked tasks, every tensor [tasks, ...].
        batching, chunk_size: see `meta_grad`.
        reduce: maps (grads, metrics) to their means over all processes; by default the identity, for one process.

    Returns:
        The next state, and the means of the metrics before the step.

    Raises:
        ValueError: as `meta_loss`.

    Source: arXiv 1703.03400, algorithm 1.

    >>> import torch, fmaml
    >>> def loss_fn(params, batch):
    ...     return 0.5 * (params["p"] - batch.y).square().mean()
    >>> y = torch.tensor([[1.0], [3.0]])
    >>> tasks = fmaml.Task(fmaml.Batch(y, y), fmaml.Batch(y, y))
    >>> algorithm, optimizer = fmaml.maml(loss_fn, inner_lr=0.5, steps=1), fmaml.sgd(1.0)
    >>> state = fmaml.init_state(algorithm, optimizer, {"p": torch.tensor(0.0)})
    >>> state, metrics = fmaml.meta_step(algorithm, optimizer, state, tasks)
    >>> state.theta, state.step, float(metrics["query_loss"])
    ({'p': tensor(0.5000)}, 1, 0.625)
    """
    algorithm = at_step(algorithm, state.step)
    grads, metrics = reduce(meta_grad(algorithm, state.theta, tasks, batching=batching, chunk_size=chunk_size))
    theta, opt_state = optimizer.step(grads, state.opt_state, state.theta)
    return MetaState(theta, opt_state, state.step + 1), metrics


def at_step(algorithm: Algorithm[ThetaT], step: int) -> Algorithm[ThetaT]:
    """The algorithm with its loss at a meta-step; the same algorithm if its loss does not change."""
    return algorithm if algorithm.at is None else algorithm.at(step)


def init_state(algorithm: Algorithm[Any], optimizer: Optimizer, params: Params) -> MetaState:
    """The state before the first meta-step.

    Args:
        algorithm: such as `fmaml.maml` returns.
        optimizer: the outer optimizer.
        params: a model's initial parameters, name -> tensor. All are learnt, even with ``requires_grad=False``;
            `fmaml.from_module` leaves such parameters out.

    Returns:
        theta, detached from the graph of ``params``, the optimizer's state, and step 0.

    Raises:
        ValueError: ``params`` is empty, or lacks a parameter that the algorithm needs.

    >>> import torch, fmaml
    >>> model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    >>> algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.01, steps=1)
    >>> state = fmaml.init_state(algorithm, fmaml.adam(1e-3), model.init(torch.Generator()))
    >>> sorted(state.theta), state.step
    (['layer1.bias', 'layer1.weight', 'layer2.bias', 'layer2.weight'], 0)
    """
    theta = detach(algorithm.init(params))
    return MetaState(theta, optimizer.init(theta), 0)


def check_call(algorithm: Any, theta: Any) -> None:
    """ValueError unless the algorithm has a loss, and theta is a tree of tensors."""
    if not callable(getattr(algorithm, "loss", None)):
        given = "None" if algorithm is None else getattr(algorithm, "__name__", type(algorithm).__name__)
        raise ValueError(
            f"algorithm = {given}: must be an Algorithm; give fmaml.maml(loss_fn, inner_lr=0.1, steps=1) or another"
        )
    if others := [type(leaf).__name__ for leaf in leaves(theta) if not isinstance(cast(Any, leaf), Tensor)]:
        raise ValueError(
            f"theta: holds a value of the type {others[0]}, must hold tensors alone; give the theta of init_state, "
            f"dict(module.named_parameters()), or torch.as_tensor(value)"
        )


# The tasks of a meta-batch: all at once, in chunks, or one by one


def chunks(tasks: Task, batching: Batching, chunk_size: int | None) -> list[Task]:
    """The tasks in parts of ``chunk_size``; None: in one part. A loop has one task in each part."""
    if batching not in ("vmap", "loop", "auto"):
        raise ValueError(f"batching = {batching!r}: must be 'vmap', 'loop' or 'auto'")
    if chunk_size is not None and (not isinstance(cast(Any, chunk_size), int) or chunk_size < 1):
        raise ValueError(f"chunk_size = {chunk_size}: must be at least 1, or None for all tasks at once")
    check_are_tasks(tasks)
    count = leading(tasks)
    if count == 0:
        raise ValueError("no tasks: the leading axis of every tensor has length 0")
    if 0 in tasks.query.y.shape:
        raise ValueError("tasks.query: has no examples, so it has no mean loss; give one or more for each task")
    size = 1 if loops_over_tasks(batching, tasks) else chunk_size or count
    return [take(tasks, slice(first, first + size)) for first in range(0, count, size)]


def check_are_tasks(tasks: Any) -> None:
    """ValueError unless the tasks are a `Task` of two `Batch`."""
    for part in ("support", "query"):
        if not isinstance(tasks, Task) or not isinstance(getattr(tasks, part), Batch):
            raise ValueError(
                f"tasks = {type(tasks).__name__}: must be Task(Batch(x, y), Batch(x, y)), support and query; "
                f"give fmaml.Task(fmaml.Batch(*support), fmaml.Batch(*query))"
            )


def mean_over_chunks(every: Callable[[Task], T], parts: list[Task]) -> T:
    """The mean over all tasks of the values that ``every`` stacks; a running sum saves memory."""
    total: Any = None
    for part in parts:
        values = map_leaves(lambda leaf: leaf.sum(0), every(part))
        total = values if total is None else add(total, values)
    count = sum(map(leading, parts))
    return map_leaves(lambda leaf: leaf / count, total)


def one_by_one(fn: Callable[[Task], T]) -> Callable[[Task], T]:
    """The equivalent of ``vmap(fn)`` for a part of one task, without vmap."""
    return lambda tasks: map_leaves(lambda leaf: leaf[None], fn(take(tasks, 0)))


def loops_over_tasks(batching: Batching, tasks: Task) -> bool:
    """Whether ``batching`` means a loop for these tasks."""
    return batching == "loop" or (batching == "auto" and loop_wins(tasks))


def loop_wins(tasks: Task) -> bool:
    """Whether a loop over the tasks was measured to be faster than vmap: for a single task on a CPU."""
    x = leaves(tasks.support.x)[0]
    return x.device.type == "cpu" and len(x) == 1
