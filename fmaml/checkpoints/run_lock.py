"""A lock on a run's folder, so that only one process writes to it. The kernel releases it when the process ends."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from ..errors import Error, note
from ..files.atomic import BINARY

LOCK_FILE = ".lock"  # never deleted: another run may have just locked it
HOLDER_STARTS = 1  # first byte of the holder's name; Windows locks byte 0, so only the holder can read that


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder during the block; Error if another process holds it."""
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
    try:
        _acquire(handle, folder)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, b" " * HOLDER_STARTS + f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(handle)


def refuse_if_held(folder: Path) -> None:
    """Raise Error if another process holds the folder's lock; the lock is not kept."""
    with contextlib.suppress(OSError):
        handle = os.open(folder / LOCK_FILE, os.O_RDWR | BINARY)
        try:
            _acquire(handle, folder)
        finally:
            os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    try:
        refuse_if_held(folder)
    except Error:
        return True
    return False


def _acquire(handle: int, folder: Path) -> None:
    try:
        acquired = lock_descriptor(handle, blocking=False)
    except OSError as error:
        note(f"{folder}: this file system does not support locks ({error.strerror}); start no other run in it")
        return
    if not acquired:
        raise Error(
            f"{folder}: in use by {_holder(handle)}, and two runs in one folder would corrupt each other; "
            f"wait for it, stop it, or name another --out"
        )


def _holder(handle: int) -> str:
    """The process that holds the lock; it writes its name into the file just after it acquires the lock."""
    for _ in range(20):
        os.lseek(handle, HOLDER_STARTS, os.SEEK_SET)
        if name := os.read(handle, 200).decode(errors="replace"):
            return name
        time.sleep(0.01)
    return "another process"
