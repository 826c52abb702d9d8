"""Files that are whole or absent, whatever happens while they are written."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def write_durably(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts beside the name, sync, rename, sync the folder: a crash leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write_synced(temporary, parts)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _write_synced(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:  # the system may take a part of it
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename last: the name is kept in the folder, which is a file of its own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed writers left behind. Only for who has the folder to himself."""
    for litter in folder.glob(f".{name}.*.tmp"):
        litter.unlink(missing_ok=True)
