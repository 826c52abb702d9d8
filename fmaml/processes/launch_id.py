"""A name for one start of the processes, which no earlier start has had.

A launcher's store may outlive the processes, and what they have written before a restart must not be found after it.
Counting restarts does not tell the starts apart: each agent counts its own, and one that replaces another begins at 0.
"""

import time
import uuid

from torch.distributed.distributed_c10d import Store

from ..errors import RunFailed

NAME = "generation"  # of process 0's start, and the names of the starts of the others that it has seen


def generation(store: Store, rank: int, count: int, limit: float) -> str:
    """The name, which process 0 draws, once all have answered; RunFailed if one has not in ``limit`` seconds.

    A name that an earlier process 0 has left behind is not taken for it: it is not written beside this process's own.
    """
    own, begin = uuid.uuid4().hex, time.monotonic()
    others = [other for other in range(count) if other != rank]
    if rank:
        store.set(f"{NAME}/{rank}", own)
    while time.monotonic() - begin < limit:
        if rank == 0:
            seen = [store.get(key).decode() for key in (f"{NAME}/{other}" for other in others) if store.check([key])]
            store.set(NAME, " ".join([own, *seen]))
            if all(store.check([f"{own}/{other}"]) for other in others):
                return own
        elif store.check([NAME]):
            name, *seen = store.get(NAME).decode().split()
            if own in seen:
                store.set(f"{name}/{rank}", "")
                return name
        time.sleep(0.02)
    missing = [other for other in others if not store.check([f"{own}/{other}"])] if rank == 0 else [0]
    raise RunFailed(f"rank {', '.join(map(str, missing))} has not joined in {limit:g} s (FMAML_TIMEOUT)")
