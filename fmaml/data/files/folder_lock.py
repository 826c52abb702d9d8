"""A lock on a folder, so that of several processes one downloads or prepares a file and the others wait."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder, waiting for it if need be. The kernel drops it when the process ends.

    The folder itself is locked, so no lock file is left behind. Raises OSError if the folder cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: checksums still protect the result
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
