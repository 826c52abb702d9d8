"""Divide a meta-batch over processes: each takes a slice of the tasks, and the meta-gradients are averaged.

`torchrun` starts the processes and `torch.distributed` connects them. All functions also work without a process group.
Task i of a meta-step depends only on (seed, split, step, i), so the slices of R processes together are the meta-batch
of one process. All processes take the same outer step.
"""

# the functions of torch.distributed have no types:
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .outer import GradsAndMetrics
from .tree import flat_of, unflatten

if dist.is_available():
    # torch.func.grad imports this module on its first call. Its functions then keep the current process group as a
    # default. The group outlives destroy_process_group, and its threads crash at exit. Imported now, they keep none.
    import torch.distributed.nn.functional  # pyright: ignore[reportUnusedImport]

DIGESTED_BYTES = 1 << 20  # at a time, since each byte becomes an int64


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def task_range(tasks: int) -> range:
    """The numbers of this process's tasks in a meta-batch; sizes of processes differ by at most one.

    Raises:
        ValueError: there are fewer tasks than processes.

    >>> import fmaml.distributed
    >>> fmaml.distributed.task_range(32)  # without a process group
    range(0, 32)
    """
    if tasks < world_size():
        raise ValueError(f"{tasks} tasks for {world_size()} processes; give each at least one")
    return range(rank() * tasks // world_size(), (rank() + 1) * tasks // world_size())


def reduce(tasks: int, *, dtype: torch.dtype | None = None) -> Callable[[GradsAndMetrics], GradsAndMetrics]:
    """Average the means of all processes, each over its `task_range`; the ``reduce`` of `fmaml.meta_step`.

    Each process is weighted by its number of tasks. All numbers are sent as one buffer in one all-reduce. All processes
    get the same bits.

    Args:
        tasks: the number of tasks in the whole meta-batch.
        dtype: the type of the numbers sent, such as torch.bfloat16 for half the bytes; None: unchanged.

    Returns:
        A function (grads, metrics) -> their means over all processes.

    >>> import torch, fmaml, fmaml.distributed
    >>> fmaml.distributed.reduce(32)(({"p": torch.ones(2)}, {"query_loss": torch.tensor(0.5)}))
    ({'p': tensor([1., 1.])}, {'query_loss': tensor(0.5000)})
    """
    if world_size() == 1:
        return lambda means: means
    weight = len(task_range(tasks)) / tasks

    def over_processes(means: GradsAndMetrics) -> GradsAndMetrics:
        flat = flat_of(means) * weight
        sent = flat if dtype is None else flat.to(dtype)
        dist.all_reduce(sent)
        return unflatten(sent.to(flat.dtype), means)

    return over_processes


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank: any objects that can be pickled, with tensors on the CPU."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """The value of process 0: any object that can be pickled, with tensors on the CPU."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def all_equal(flat: Tensor) -> bool:
    """Whether this tensor has the same bits in all processes."""
    if world_size() == 1:
        return True
    raw = flat.detach().contiguous().view(torch.uint8)
    weights = torch.arange(1, 1 + min(DIGESTED_BYTES, len(raw)), device=raw.device)
    parts = (raw[begin : begin + DIGESTED_BYTES] for begin in range(0, len(raw), DIGESTED_BYTES))
    sums = torch.stack([(part.long() * weights[: len(part)]).sum() for part in parts])
    digest = (sums * torch.arange(1, 1 + len(sums), device=flat.device)).sum()
    extremes = torch.stack([digest, -digest])
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return bool(extremes[0] == -extremes[1])
