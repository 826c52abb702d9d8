"""A lock on a folder, so that of several processes one downloads or prepares a file and the others wait."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from ...files.atomic import FOLDERS_OPEN

_LOCK_FILE = ".lock"  # only on Windows


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder, waiting for it if need be. The kernel drops it when the process ends.

    Raises OSError if the folder cannot be opened.
    """
    handle = _open(folder)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: checksums still protect the result
            lock_descriptor(handle)
        yield
    finally:
        os.close(handle)


def _open(folder: Path) -> int:
    """The folder itself, so that no lock file is left behind; on Windows, which opens no folder, a file in it."""
    return os.open(folder, os.O_RDONLY) if FOLDERS_OPEN else os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
