"""The processes of a run: join them, stop them together, and report the one that failed.

`torchrun`, or any launcher that sets its variables, starts them. Only process 0 prints and writes.
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
SHARED_ERROR_WAIT_S = 0.5  # the other processes wait, so that process 0 reports an error that all of them have
GRACE_S = 10.0  # for the other processes to answer
PREPARATION_LIMIT_S = 3600  # for process 0 of a machine to download and decode data
STOPPED = "stopped"  # the metric: whether a process got a signal
TIMEOUT_WORDS = ("timed out", "timeout")  # in the error of a collective operation if another process is missing
HOW_TO_GO_ON = "the run continues from its last checkpoint with --resume, or by --max-restarts"


class Processes(NamedTuple):
    """The joined processes; through ``store`` they exchange messages outside collective operations."""

    launched: Launched
    store: Store | None  # None for a single process

    def first_on_machine(self, prepare: Callable[[], T]) -> T:
        """Call ``prepare()`` in the first process of each machine, then in its others, which use the first one's cache.

        Returns when all processes are done, because this can take longer than the timeout of a collective operation.
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
    """Join the other processes during the block.

    An error in one process ends all. The failed process reports it; if that is gone, another one does. The others raise
    Ended.
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
    """The error with its rank, or Ended if another process has already failed."""
    time.sleep(SHARED_ERROR_WAIT_S if launched.rank else 0)
    if not first_to_fail(store, launched):
        return Ended()
    return type(error)(f"rank {launched.rank}: {error.args[0]}", *error.args[1:]) if launched.rank else error


def error_of_lost_others(error: Exception, store: Store, launched: Launched, limit: float) -> Error:
    """Leave the group, and return the error for a collective operation with a missing process."""
    waited = any(word in str(error).lower() for word in TIMEOUT_WORDS)
    with deferred_signals():  # the launcher asks all to end as soon as it has seen one end
        traceback.clear_frames(error.__traceback__)  # its local variables would keep connections open
        leave()  # so that processes that wait for this one notice, too
        return why_lost(store, launched, waited, limit)


def own_store(launched: Launched, limit: float) -> Store:
    """A store that only these processes share, without entries from before a restart; RunFailed if they cannot join."""
    try:
        everything, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=limit)))  # type: ignore[no-untyped-call]
        return PrefixStore(launch_id(everything, launched.rank, launched.world_size, limit), everything)
    except (ValueError, dist.DistError) as error:
        reason = str(error).partition("\n")[0]
        raise RunFailed(
            f"rank {launched.rank}: cannot join the others ({reason}); start all processes with torchrun"
        ) from None


def has_lost_others(error: Exception) -> bool:
    """Whether the error means that another process is missing in a collective operation."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text))


def leave() -> None:
    """Close the connections to the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def first_to_fail(store: Store, launched: Launched) -> bool:
    """Record that this process failed; True if it is the first, or if the store is gone."""
    with contextlib.suppress(RuntimeError):
        return is_first(store, "failed", launched)
    return True


def is_first(store: Store, key: str, launched: Launched) -> bool:
    """Take the key for this process; True unless another process has taken it before."""
    rank = str(launched.rank)
    return store.compare_set(key, "", rank) == rank.encode()


def why_lost(store: Store, launched: Launched, waited: bool, limit: float) -> Error:
    """The error for a lost process; Ended if another process reports it."""
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
    """The ranks that do not answer within `GRACE_S`; the wait ends when only one is missing."""
    store.set(f"there/{launched.rank}", "")
    missing, begin = list(range(launched.world_size)), time.monotonic()
    while len(missing) > 1 and time.monotonic() - begin < GRACE_S:
        time.sleep(0.05)
        missing = [rank for rank in missing if not store.check([f"there/{rank}"])]
    return missing


def map_over_ranks(parts: list[T], compute: Callable[[T], Result]) -> Iterator[tuple[T, Result]]:
    """Yield each part with its result, in order, in every process; each result is computed in one process.

    Raises Stopped in all processes once one got a signal, after the parts computed until then.
    """
    rank, count = distributed.rank(), distributed.world_size()
    for first in range(0, len(parts), count):
        batch = parts[first : first + count]
        mine = compute(batch[rank]) if rank < len(batch) else None
        gathered = distributed.gather((mine, received_signal()))
        for part, (result, _) in zip(batch, gathered, strict=False):
            yield part, result
        if first + count < len(parts):
            raise_if_any(number for _, number in gathered)


def with_vote(reduce: Callable[[GradsAndMetrics], GradsAndMetrics]) -> Callable[[GradsAndMetrics], GradsAndMetrics]:
    """The reduction, with a metric that counts the processes that got a signal to stop."""

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
        """Raise Stopped if a process got a signal. On a GPU, read the vote of the step before, to avoid waiting."""
        if STOPPED not in metrics:
            return raise_if_stopped()
        vote = metrics[STOPPED]
        read, self.last = (vote if vote.device.type == "cpu" else self.last), vote
        raise_if_any([signal.SIGTERM] if read is not None and read != 0 else [])


def raise_if_any(numbers: Any) -> None:
    """Raise Stopped for the first signal that any process got; clear this process's own."""
    for number in numbers:
        if number is not None:
            raise_if_stopped()
            raise Stopped(int(number))


def mean_over_ranks(numbers: Mapping[str, float], tasks: int) -> dict[str, float]:
    """The means over a whole meta-batch, from the means of each process over its tasks."""
    if distributed.world_size() == 1:
        return dict(numbers)
    means = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return {name: float(value) for name, value in distributed.reduce(tasks)(({}, means))[1].items()}
