"""The name of one start of the processes: the same in all, and never one that an earlier start has left behind."""

import random
import threading
import time

import pytest
import torch.distributed as dist

from fmaml.errors import RunFailed
from fmaml.processes.launcher import launch_id


def names_of(store, count: int) -> list[str]:
    """The name that each process finds; they start one after the other, in any order."""
    found: dict[int, str] = {}

    def start(rank: int, delay: float) -> None:
        time.sleep(delay)
        found[rank] = launch_id(store, rank, count, 300)

    threads = [threading.Thread(target=start, args=(rank, random.random() * 0.2)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(count)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_start_has_a_name_of_its_own(count):
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    starts = [names_of(store, size) for size in (count, count, count + 1, count)]
    assert all(len({*names}) == 1 for names in starts)
    assert len({names[0] for names in starts}) == 4


def test_who_does_not_join_is_named():
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    names_of(store, 3)
    with pytest.raises(RunFailed, match=r"rank 1, 2 has not joined in 0\.1 s \(FMAML_TIMEOUT\)"):
        launch_id(store, 0, 3, 0.1)
    with pytest.raises(RunFailed, match=r"rank 0 has not joined"):
        launch_id(store, 1, 3, 0.1)
