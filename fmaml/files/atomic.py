"""Atomic, durable file writes: after a crash at any moment a file has its old content or its new one, in full."""

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

BINARY: int = getattr(os, "O_BINARY", 0)  # only on Windows, where `os.open` without it rewrites line ends
FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")  # not on Windows, where a folder cannot be opened


def write_durably(path: Path, *parts: bytes | memoryview) -> None:
    """Replace the file's content with the parts: write a temporary file, sync it, rename it, sync the folder.

    Raises OSError if a step fails, also if there is no such folder; the old file, if any, is then unchanged.
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
    """`write_durably` of a text in UTF-8; a file's name that is no UTF-8 is written with escapes, and stops nothing."""
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
    """Make renames in a folder durable: a file's name is stored in the folder and needs a sync of its own.

    On Windows this does nothing: a folder cannot be opened there, and NTFS logs renames itself.
    """
    if not FOLDERS_OPEN:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def delete_temporary_files(folder: Path, name: str = "*") -> None:
    """Delete killed writers' temporary files; the caller holds the folder's lock.

    ``name`` is the name of the file that was being written, by default any.
    """
    for temporary in folder.glob(f".{name}.*.tmp"):
        temporary.unlink(missing_ok=True)
