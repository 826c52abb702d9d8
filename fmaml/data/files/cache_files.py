"""The files of the cache: list them, limit their size, delete the least recently used. Imports no torch.

Only files of tensors count, because they can be made again. Downloads and splits do not count.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from ...errors import Error, note
from ...files.cache_folder import cache_folder
from ...files.regular import PREFIXES, limit_from

ABOUT = "about"  # the key of a file's description in its metadata
LIMIT_VARIABLE = "FMAML_CACHE_LIMIT"
_DEFAULT_LIMIT = 10 * 10**9  # bytes
_MAX_HEADER_BYTES = 10_000_000


class CacheFile(NamedTuple):
    """One file of the cache."""

    path: Path
    size: int  # bytes
    used: float  # time of the last use, in seconds since 1970


def limit() -> int:
    """The largest size of all files together in bytes, from $FMAML_CACHE_LIMIT; Error if that is not a size."""
    return limit_from(LIMIT_VARIABLE, _DEFAULT_LIMIT)


def cache_files(folder: Path) -> list[CacheFile]:
    """The files of the folder, the most recently used first."""
    found: list[CacheFile] = []
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # another process has just deleted it
            stat = path.stat()
            found.append(CacheFile(path, stat.st_size, stat.st_mtime))
    return sorted(found, key=lambda file: (-file.used, file.path))


def mark_used(path: Path) -> None:
    """Set the time of the last use to now, if permitted."""
    with contextlib.suppress(OSError):
        os.utime(path)


def make_room(path: Path, size: int) -> bool:
    """Delete the least recently used files until ``path`` with ``size`` bytes fits. Returns whether it fits.

    A process that has opened a deleted file can still read it. A line on stderr names the deleted files, or says that
    the new file is too large.
    """
    most = limit()
    if size > most:
        note(
            f"{path.name} is not cached: it has {as_size(size)}, the limit is {as_size(most)}; raise it by "
            f"{LIMIT_VARIABLE}, such as {LIMIT_VARIABLE}={as_size(2 * size).replace(' ', '').removesuffix('B')}"
        )
        return False
    free = most - size
    for file in cache_files(path.parent):
        if file.path == path:
            continue
        free -= file.size
        if free < 0:
            delete(file)
            note(f"{file.path.name} is deleted from the cache, which has at most {as_size(most)} ({LIMIT_VARIABLE})")
    return True


def delete(file: CacheFile) -> None:
    """Delete the file. Windows refuses while it is open; then it stays."""
    with contextlib.suppress(OSError):
        file.path.unlink()


def about(file: CacheFile) -> str:
    """The description in the file's header, or "" if there is none."""
    try:
        with file.path.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(min(length, _MAX_HEADER_BYTES)))
        return str(header["__metadata__"].get(ABOUT, ""))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return "damaged; it is made again when needed"


def listing() -> list[str]:
    """The lines of `fmaml cache`: each file with its size, last use and description."""
    folder = cache_folder()
    files = cache_files(folder)
    total = sum(file.size for file in files)
    lines = [f"{folder}: {as_size(total)} of at most {as_size(limit())} ({LIMIT_VARIABLE})"]
    width = max((len(file.path.stem) for file in files), default=0)
    for file in files:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.used))
        lines.append(f"  {file.path.stem:{width}}  {as_size(file.size):>8}  used {used}  {about(file)}".rstrip())
    return lines


def clear(names: list[str], *, everything: bool = False) -> list[CacheFile]:
    """Delete the named files, or all, and return them. Error for an unknown name."""
    files = cache_files(cache_folder())
    chosen = files
    if not everything:
        by_name = {file.path.stem: file for file in files}
        unknown = [name for name in names if name.removesuffix(".safetensors") not in by_name]
        if unknown:
            raise Error(f"cache clear {unknown[0]}: no such file in {cache_folder()}; `fmaml cache` lists them")
        chosen = [by_name[name.removesuffix(".safetensors")] for name in names]
    for file in chosen:
        delete(file)
    return chosen


def total(files: list[CacheFile]) -> str:
    """Such as "2 files, 105.8 MB"."""
    return f"{len(files)} file{'s' * (len(files) != 1)}, {as_size(sum(file.size for file in files))}"


def as_size(size: int) -> str:
    """A number of bytes as text, such as "105.8 MB"."""
    for unit, factor in reversed(PREFIXES.items()):
        if unit and size >= factor:
            return f"{size / factor:.1f} {unit}B".replace("KB", "kB")
    return f"{size} B"
