"""The user's cache folder: its path, whether writing is allowed, and a lock on it."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from filelock import lock_descriptor

from ..errors import Error
from .atomic import FOLDERS_OPEN

_LOCK_FILE = ".lock"  # only on Windows
_allowed = ContextVar("allowed", default=True)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fmaml``, or ``~/.cache/fmaml``. It need not exist. Error if there is no home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fmaml"
    except RuntimeError:
        raise Error("this user has no home folder to cache data in; set XDG_CACHE_HOME to a folder") from None


def writing_allowed() -> bool:
    """Whether results may be cached and missing files downloaded. In a dry run they may not."""
    return _allowed.get()


@contextlib.contextmanager
def writing(allowed: bool) -> Iterator[None]:
    """Set `writing_allowed` to ``allowed`` within the block."""
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait for an exclusive lock on the folder, and hold it. The kernel releases it when the process ends.

    So one process prepares a file while others wait. Raises OSError if the folder cannot be opened.
    """
    # Lock the folder itself, so that no lock file stays behind. Windows cannot open folders: lock a file in it.
    path, flags = (folder, os.O_RDONLY) if FOLDERS_OPEN else (folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT)
    handle = os.open(path, flags, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: checksums still protect the result
            lock_descriptor(handle)
        yield
    finally:
        os.close(handle)
