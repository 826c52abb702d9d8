"""Files that are whole or absent, whatever happens while they are written."""

import contextlib
import os
import tempfile
from pathlib import Path


def write_durably(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts, one after the other, beside the name, sync, rename, sync the folder: a crash at any instant
    leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last: the name is kept in the folder, which is a file of its own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
