"""The processes of a run: how they join, agree when to stop, and say which of them failed.

`torchrun`, or any launcher that sets its variables, starts them. Process 0 alone prints and writes; the others compute.
"""

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from .. import distributed
from ..errors import Ended, Error, RunFailed, Stopped, muted
from ..outer import GradsAndMetrics
from ..tree import T
from ..types import Metrics
from .launcher import Launched, launch_id, time_limit
from .signals import deferred_signals, raise_if_stopped, received_signal

Result = TypeVar("Result")
SHARED_ERROR_WAIT_S = 0.5  # that process 0 is waited for: what all find alike is told by it
GRACE_S = 10.0  # for the others to say that they are there
PREPARATION_LIMIT_S = 3600  # for process 0 of a machine to download and decode data
STOPPED = "stopped"  # the metric that says whether a process got a signal
TIMEOUT_WORDS = ("timed out", "timeout")  # in the message of an operation that another process took no part in
HOW_TO_GO_ON = "the run goes on from its last checkpoint with --resume, or by --max-restarts"


class Processes(NamedTuple):
    """Those that have joined; ``store`` holds what they tell each other beside collective operations."""

    launched: Launched
    store: Store | None  # None for a process that is alone

    def first_on_machine(self, prepare: Callable[[], T]) -> T:
        """``prepare()``, in the first process of each machine, then in its others, which find what it has cached.

        Returns when all processes have done so: machines may take longer than an operation of all may last.
        """
        if self.store is None:
            return prepare()
        rank, first = self.launched.rank, self.launched.rank - self.launched.local_rank
        if rank != first:
            self._wait_for(f"prepared/{first}")
        prepared = prepare()
        self.store.set(f"prepared/{rank}", "")
        for other in range(self.launched.world_size):
            self._wait_for(f"prepared/{other}")
        return prepared

    def _wait_for(self, key: str) -> None:
        assert self.store is not None
        begin = time.monotonic()
        while not self.store.check([key]):
            if self.store.check(["failed"]):
                raise Ended
            if time.monotonic() - begin > PREPARATION_LIMIT_S:
                raise RunFailed(f"rank {key.partition('/')[2]} has not prepared the data in {PREPARATION_LIMIT_S} s")
            time.sleep(0.05)


@contextlib.contextmanager
def joined(launched: Launched, device: torch.device) -> Iterator[Processes]:
    """Join the other processes for the duration of the block.

    An error in one process ends all. It is told once, by the process that it happened in, or if that one is gone, by
    the first that is left. Raises Ended in the others.
    """
    if launched.world_size == 1:
        yield Processes(launched, None)
        return
    limit = time_limit()
    store = own_store(launched, limit)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=launched.rank,
            world_size=launched.world_size,
            timeout=timedelta(seconds=limit),
        )
        with muted() if launched.rank else contextlib.nullcontext():
            yield Processes(launched, store)
    except (Stopped, Ended):
        raise
    except Error as error:
        raise error_told_once(error, store, launched) from None
    except Exception as error:
        if not has_lost_others(error):
            first_to_fail(store, launched)
            raise
        raise error_of_lost_others(error, store, launched, limit) from None
    finally:
        leave()


def error_told_once(error: Error, store: Store, launched: Launched) -> Error:
    """The error with its rank, or Ended if another process has failed before."""
    time.sleep(SHARED_ERROR_WAIT_S if launched.rank else 0)
    if not first_to_fail(store, launched):
        return Ended()
    return type(error)(f"rank {launched.rank}: {error}") if launched.rank else error


def error_of_lost_others(error: Exception, store: Store, launched: Launched, limit: float) -> Error:
    """The reason for an operation that another process took no part in; this process leaves the group."""
    waited = any(word in str(error).lower() for word in TIMEOUT_WORDS)
    with deferred_signals():  # the launcher asks all to end as soon as it has seen one end
        traceback.clear_frames(error.__traceback__)  # local variables there would keep connections open
        leave()  # so that those who wait for this one notice, too
        return why_lost(store, launched, waited, limit)


def own_store(launched: Launched, limit: float) -> Store:
    """What these processes, and no earlier start of them, can write in and read; RunFailed if they do not meet."""
    try:
        everything, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=limit)))  # type: ignore[no-untyped-call]
        return PrefixStore(launch_id(everything, launched.rank, launched.world_size, limit), everything)
    except (ValueError, dist.DistError) as error:
        reason = str(error).partition("\n")[0]
        raise RunFailed(f"rank {launched.rank}: cannot join the others ({reason}); start all with torchrun") from None


def has_lost_others(error: Exception) -> bool:
    """Whether it says that another process took no part in an operation of all."""
    said = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in said or "nccl" in said))


def leave() -> None:
    """Close the connections to the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def first_to_fail(store: Store, launched: Launched) -> bool:
    """Whether no other process has failed before, or is gone; from now on this one has."""
    with contextlib.suppress(RuntimeError):
        return is_first(store, "failed", launched)
    return True


def is_first(store: Store, key: str, launched: Launched) -> bool:
    """Whether no other process has taken the key; from now on this one has."""
    rank = str(launched.rank)
    return store.compare_set(key, "", rank) == rank.encode()


def why_lost(store: Store, launched: Launched, waited: bool, limit: float) -> Error:
    """Why another process did not take part any more; Ended where another one says it."""
    try:
        missing = missing_ranks(store, launched)
        if store.check(["failed"]) or not is_first(store, "told", launched):
            return Ended()
    except RuntimeError:  # the store is gone, with the launcher or with process 0
        return Ended(f"the launcher, or rank 0, is gone: killed; {HOW_TO_GO_ON}")
    who = f"rank {', '.join(map(str, missing))}" if missing else "a process"
    what = f"has not answered for {limit:g} s (FMAML_TIMEOUT): stopped, or cut off" if waited else "is gone: killed"
    return RunFailed(f"{who} {what}; {HOW_TO_GO_ON}")


def missing_ranks(store: Store, launched: Launched) -> list[int]:
    """The ranks that do not say in `GRACE_S` that they are there; the wait ends when a single one is missing."""
    store.set(f"there/{launched.rank}", "")
    missing, begin = list(range(launched.world_size)), time.monotonic()
    while len(missing) > 1 and time.monotonic() - begin < GRACE_S:
        time.sleep(0.05)
        missing = [rank for rank in missing if not store.check([f"there/{rank}"])]
    return missing


def map_over_ranks(parts: list[T], compute: Callable[[T], Result]) -> Iterator[tuple[T, Result]]:
    """Each part and what ``compute`` makes of it, in order, in every process; each part is computed by one of them.

    Raises Stopped in all processes once one got a signal, after the parts that were computed meanwhile.
    """
    rank, count = distributed.rank(), distributed.world_size()
    for first in range(0, len(parts), count):
        batch = parts[first : first + count]
        mine = compute(batch[rank]) if rank < len(batch) else None
        told = distributed.gather((mine, received_signal()))
        for part, (result, _) in zip(batch, told, strict=False):
            yield part, result
        if first + count < len(parts):
            raise_if_any(number for _, number in told)


def with_vote(reduce: Callable[[GradsAndMetrics], GradsAndMetrics]) -> Callable[[GradsAndMetrics], GradsAndMetrics]:
    """The reduction, which also says in the metrics how many processes got a signal to stop."""

    def voted(means: GradsAndMetrics) -> GradsAndMetrics:
        grads, metrics = means
        vote = torch.full_like(metrics["query_loss"], float(received_signal() is not None))
        return reduce((grads, {**metrics, STOPPED: vote}))

    return voted


class Vote:
    """Ends a run in all its processes after the same step."""

    def __init__(self) -> None:
        self.last: torch.Tensor | None = None

    def stop_if_any(self, metrics: Metrics) -> None:
        """Raise Stopped if a process got a signal. On a GPU the vote of the step before is read, which is there."""
        if STOPPED not in metrics:
            return raise_if_stopped()
        vote = metrics[STOPPED]
        read, self.last = (vote if vote.device.type == "cpu" else self.last), vote
        raise_if_any([signal.SIGTERM] if read is not None and read != 0 else [])


def raise_if_any(numbers: Any) -> None:
    """Raise Stopped for the first signal that any process got; this process forgets its own."""
    for number in numbers:
        if number is not None:
            raise_if_stopped()
            raise Stopped(int(number))


def mean_over_ranks(numbers: Mapping[str, float], tasks: int) -> dict[str, float]:
    """Means of each process over its tasks, as the means over all of a meta-batch."""
    if distributed.world_size() == 1:
        return dict(numbers)
    means = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return {name: float(value) for name, value in distributed.reduce(tasks)(({}, means))[1].items()}
