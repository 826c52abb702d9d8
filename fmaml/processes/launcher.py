"""The place of this process in a launch by `torchrun` or a similar launcher. Imports no torch."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Ended, Error, RunFailed, muted

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

DEFAULT_TIME_LIMIT_S = 600.0
LAUNCH_ID = "launch_id"  # key of process 0's name and of the other names that it has seen

# in the order of the fields of `Launched`
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS")


class Launched(NamedTuple):
    """The place of this process among the processes of a run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on its machine
    local_size: int = 1  # number of processes on its machine
    restarts_allowed: int = 0  # how often the launcher may restart all processes


ALONE = Launched()


def launched() -> Launched:
    """Read the variables of `torchrun`; without them the process is alone. Error if they are not numbers."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return ALONE
    try:
        here = Launched(*(int(os.environ.get(name, default)) for name, default in zip(VARIABLES, ALONE, strict=True)))
    except ValueError as error:
        raise Error(f"{', '.join(VARIABLES)}: {error}; start the processes with torchrun") from None
    if not 0 <= here.local_rank <= here.rank < here.world_size:
        raise Error(
            f"RANK = {here.rank}, LOCAL_RANK = {here.local_rank}, WORLD_SIZE = {here.world_size}: ranks go from 0 to "
            f"WORLD_SIZE - 1; start the processes with torchrun"
        )
    return here


@contextlib.contextmanager
def report_once(launched: Launched) -> Iterator[None]:
    """Let only the first process of a machine report an error that all of them have, such as a wrong config."""
    if launched.local_rank == 0:
        yield
        return
    try:
        with muted():
            yield
    except Error as error:
        raise Ended(str(error)) from None


def time_limit() -> float:
    """Seconds until a silent process counts as lost; Error if FMAML_TIMEOUT is not a number of seconds."""
    text = os.environ.get("FMAML_TIMEOUT", "")
    try:
        seconds = float(text or DEFAULT_TIME_LIMIT_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e7:
        raise Error(f"FMAML_TIMEOUT = {text}: must be a number of seconds above 0, such as 600")
    return seconds


def check_launch(launched: Launched, out: str | None) -> None:
    """Raise Error for a wrong time limit, or for restarts without --out: a restarted run needs its folder."""
    time_limit()
    if launched.restarts_allowed and not out:
        raise Error("--max-restarts: a restarted run continues in its folder; name it with --out DIR")


def launch_id(store: "Store", rank: int, count: int, limit: float) -> str:
    """A unique identifier of this start of the processes.

    A launcher's store may outlive the processes, so entries from before a restart must be hidden. Counting restarts is
    not enough: an agent that replaces another counts from 0 again. So process 0 draws a name, and all processes answer
    to it. Raises RunFailed if one has not answered within ``limit`` seconds. The others accept only a name beside their
    own, so an earlier process 0 cannot mislead them.
    """
    own, begin = uuid.uuid4().hex, time.monotonic()
    if rank:
        store.set(f"{LAUNCH_ID}/{rank}", own)
    while time.monotonic() - begin < limit:
        agreed = offer_name(store, own, count) if rank == 0 else take_name(store, own, rank)
        if agreed:
            return agreed
        time.sleep(0.02)
    missing = [other for other in range(1, count) if not store.check([f"{own}/{other}"])] if rank == 0 else [0]
    raise RunFailed(f"rank {', '.join(map(str, missing))} has not joined in {limit:g} s (FMAML_TIMEOUT)")


def offer_name(store: "Store", own: str, count: int) -> str | None:
    """Write process 0's name and the other names that it has seen; return its name once all have answered."""
    keys = [f"{LAUNCH_ID}/{other}" for other in range(1, count)]
    seen = [store.get(key).decode() for key in keys if store.check([key])]
    store.set(LAUNCH_ID, " ".join([own, *seen]))
    return own if all(store.check([f"{own}/{other}"]) for other in range(1, count)) else None


def take_name(store: "Store", own: str, rank: int) -> str | None:
    """Answer process 0 once it has seen this process, and return its name; None until then."""
    if not store.check([LAUNCH_ID]):
        return None
    name, *seen = store.get(LAUNCH_ID).decode().split()
    if own not in seen:
        return None
    store.set(f"{name}/{rank}", "")
    return name
