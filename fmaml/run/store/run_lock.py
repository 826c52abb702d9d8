"""One folder has one run. The kernel releases the lock with the process, however that ends."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError

LOCK_FILE = ".lock"  # never deleted: a run that deleted it could delete another's


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which must be there; UserError at once if another process does."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(handle, folder)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def refuse_if_held(folder: Path) -> None:
    """Nothing, or the same UserError: what the command line can ask before it imports torch."""
    with contextlib.suppress(OSError):
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
        try:
            _take(handle, folder)
        finally:
            os.close(handle)


def _take(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: in use by {_holder(handle)}, and two runs in one folder would spoil both; "
            f"wait for it, stop it, or name another --out"
        ) from None
    except OSError as error:
        print(
            f"fmaml: {folder}: this file system has no locks ({error.strerror}); run nothing else in it",
            file=sys.stderr,
        )


def _holder(handle: int) -> str:
    """Who has the lock; he writes his name a moment after he has it."""
    for _ in range(20):
        if name := os.pread(handle, 200, 0).decode(errors="replace"):
            return name
        time.sleep(0.01)
    return "another process"
