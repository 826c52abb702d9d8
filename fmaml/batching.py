"""A function of one task over stacked tasks: all of them in one vectorised call, in chunks, or one after the other."""

from collections.abc import Callable, Iterator

from torch.func import vmap

from .setting_types import Batching
from .tree import T, add, leading, leaves, map_leaves, take
from .types import Task

LARGE_TASK = 1_000_000  # numbers in its inputs: 5-way 1-shot with 15 queries has 1,693,440 at 84x84x3, 62,720 at 28x28


def mean_over_tasks(fn: Callable[[Task], T], tasks: Task, batching: Batching, chunk_size: int | None) -> T:
    """The mean over the tasks of a function of one task; a running sum, so that no chunk's values are kept."""
    count = leading(tasks)
    chunks = per_chunk(fn, tasks, batching, chunk_size)
    total = _sum(next(chunks))
    for chunk in chunks:
        total = add(total, _sum(chunk))
    return map_leaves(lambda leaf: leaf / count, total)


def _sum(stacked: T) -> T:
    return map_leaves(lambda leaf: leaf.sum(0), stacked)


def per_chunk(fn: Callable[[Task], T], tasks: Task, batching: Batching, chunk_size: int | None) -> Iterator[T]:
    """Yield ``fn`` of the tasks of each chunk, stacked along a leading axis; when looping a chunk is one task."""
    if batching not in ("vmap", "loop", "auto"):
        raise ValueError(f"batching = {batching!r}: must be 'vmap', 'loop' or 'auto'")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size = {chunk_size}: must be at least 1, or None for all tasks at once")
    count = leading(tasks)
    if count == 0:
        raise ValueError("no tasks: the leading axis of every tensor has length 0")
    if loops_over_tasks(batching, tasks):
        yield from (map_leaves(lambda leaf: leaf[None], fn(take(tasks, i))) for i in range(count))
        return
    size = chunk_size or count
    yield from (vmap(fn)(take(tasks, slice(first, first + size))) for first in range(0, count, size))


def loops_over_tasks(batching: Batching, tasks: Task) -> bool:
    """Whether ``batching`` means one task after the other for these tasks."""
    return batching == "loop" or (batching == "auto" and loop_wins(tasks))


def loop_wins(tasks: Task) -> bool:
    """Whether looping over the tasks is known to be faster than vmap (benchmarks/vmap_vs_loop.py).

    On a CPU the loop is faster for a single task of most networks, and for large tasks where there are many (16 of
    84x84x3; 4 are faster vmapped by MAML) or where they share weights (prototypes).
    """
    inputs = leaves((tasks.support.x, tasks.query.x))
    count = len(inputs[0])
    return inputs[0].device.type == "cpu" and (count == 1 or sum(x.numel() for x in inputs) > count * LARGE_TASK)
