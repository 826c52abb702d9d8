"""Detect that a run's folder was moved or removed; its path may then belong to another run."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import RunFailed

CheckFolder: TypeAlias = Callable[[], None]  # raises RunFailed if the folder is gone; called before each write


@contextlib.contextmanager
def watched_folder(folder: Path) -> Iterator[CheckFolder]:
    """Hold the folder open during the block; yield a function that checks that its path still leads to it.

    While it is open, no other folder gets its inode number. Windows cannot open folders. But it cannot move or remove a
    folder with an open file either, and the run keeps its lock file open.
    """
    handle = _open(folder)
    at_start = os.stat(folder)

    def check() -> None:
        if not _leads_to(folder, at_start if handle is None else os.stat(handle)):
            raise RunFailed(
                f"{folder}: moved or removed while this run was writing to it, so the run has stopped; if it was "
                f"moved, `fmaml resume NEWPLACE` continues"
            )

    try:
        yield check
    finally:
        if handle is not None:
            os.close(handle)


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows
        return None


def _leads_to(path: Path, held: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), held)
    except (FileNotFoundError, NotADirectoryError):
        return False
