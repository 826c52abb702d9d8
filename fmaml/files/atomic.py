"""Atomic, durable file writes: after a crash at any moment a file has its complete old or new content."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

BINARY: int = getattr(os, "O_BINARY", 0)  # only on Windows: without it `os.open` rewrites line ends
FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")  # Windows cannot open folders


def write_durably(path: Path, *parts: bytes | memoryview) -> None:
    """Replace the file's content with the parts: write a temporary file, sync it, rename it, sync the folder.

    Raises OSError if a step fails, also if the folder is missing. The old file, if any, is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write_synced(temporary, parts)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_text_durably(path: Path, text: str) -> None:
    """Write a text in UTF-8, see `write_durably`. File names that are not UTF-8 are escaped."""
    write_durably(path, text.encode("utf-8", "backslashreplace"))


def _write_synced(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:  # os.write may write only some of the bytes
                rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable: file names are stored in the folder, which needs its own sync.

    Does nothing on Windows, which cannot open folders; NTFS logs renames.
    """
    if not FOLDERS_OPEN:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def delete_temporary_files(folder: Path, name: str = "*") -> None:
    """Delete temporary files of killed writers. The caller must hold the folder's lock.

    ``name`` is the name of the target file, by default any.
    """
    for temporary in folder.glob(f".{name}.*.tmp"):
        temporary.unlink(missing_ok=True)
