"""A lock on a run's folder, so that only one process writes it. The kernel releases it when the process ends."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError, note

LOCK_FILE = ".lock"  # never deleted: a run that deleted it could delete the file that another run has just locked


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder during the block; UserError if another process holds it."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(handle, folder)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def refuse_if_held(folder: Path) -> None:
    """Raise UserError if another process holds the folder's lock; the lock is not kept."""
    with contextlib.suppress(OSError):
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
        try:
            _acquire(handle, folder)
        finally:
            os.close(handle)


def _acquire(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: in use by {_holder(handle)}, and two runs in one folder would corrupt both; "
            f"wait for it, stop it, or name another --out"
        ) from None
    except OSError as error:
        note(f"{folder}: this file system does not support locks ({error.strerror}); start no other run in it")


def _holder(handle: int) -> str:
    """The process that holds the lock, by what it wrote in the file just after it acquired the lock."""
    for _ in range(20):
        if name := os.pread(handle, 200, 0).decode(errors="replace"):
            return name
        time.sleep(0.01)
    return "another process"
