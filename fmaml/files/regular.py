"""Read regular files only, up to a size limit, which the user may set.

A pipe may wait for a writer for ever, a device has no end, and a sparse file can have any size.
"""

import errno
import os
import re
import stat
from pathlib import Path

from ..errors import Error

PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class UnsuitableFile(OSError):
    """The path is not a regular file, or the file is too large."""

    def __str__(self) -> str:
        return str(self.strerror)


def check_regular(path: Path | str, max_bytes: int | None = None) -> None:
    """Raise UnsuitableFile unless ``path`` is a regular file of at most ``max_bytes``; OSError if it is missing."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise UnsuitableFile(errno.EINVAL, "not a regular file, so reading it may never end", str(path))
    if max_bytes is not None and found.st_size > max_bytes:
        raise UnsuitableFile(errno.EINVAL, f"it has more than {max_bytes} bytes", str(path))


def read_regular(path: Path | str, max_bytes: int) -> bytes:
    """Read a file. Errors: see `check_regular`."""
    check_regular(path, max_bytes)
    return Path(path).read_bytes()


def limit_from(variable: str, default: int, things: str = "bytes") -> int:
    """The limit in the environment variable, such as 5000000000 or 5G; Error if that is not a size."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    match = re.fullmatch(r"(\d{1,15})\s*([KMGT]?)B?", text.upper())
    if not match:
        raise Error(f"{variable} = {text}: not a size; give a number of {things}, such as 5000000000 or 5G")
    return int(match[1]) * PREFIXES[match[2]]
