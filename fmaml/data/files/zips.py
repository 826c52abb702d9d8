"""Read files in a zip or a folder. Zips are not trusted, and nothing is extracted."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ...errors import Error
from ...files.regular import check_regular, read_regular


def zip_or_folder(folder: Path, name: str) -> Path | None:
    """``folder/name.zip``, or else the folder ``folder/name``; None if neither exists.

    The zip has priority: a truncated zip is detected, but a folder may be half unpacked.
    """
    zipped = folder / f"{name}.zip"
    return zipped if zipped.is_file() else folder / name if (folder / name).is_dir() else None


Read = Callable[[str, int], bytes]  # file name, size limit in bytes -> content


@contextlib.contextmanager
def open_files(path: Path, max_bytes: int) -> Iterator[tuple[Iterable[str], Read]]:
    """Open a zip or a folder: gives its file names, which begin with the folder's name, and a function to read one.

    Raises Error if a zip has more than ``max_bytes``, or a file is damaged, too large or missing.
    """
    try:
        if path.is_dir():
            yield _names(path), lambda name, most: read_regular(path.parent / name, most)
        else:
            check_regular(path, max_bytes)  # reading a million names would take seconds
            with zipfile.ZipFile(path) as archive:
                yield archive.namelist(), partial(_read_member, archive)
    # KeyError: missing; RuntimeError: encrypted or unknown compression; the others: damaged
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError) as error:
        why = f"{path}: not a complete zip ({error})"
        if isinstance(error, OSError) and error.filename:
            why = f"{error.filename}: {error.strerror}"
        raise Error(f"{why}; copy or download it again") from error


def _names(folder: Path) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(base, name), folder.parent) for name in names)


def _read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Read a member, stored or deflated. Other methods may unpack far more than the size in the archive."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{name} is not compressed by deflate")
    if info.file_size > max_bytes:
        raise zipfile.BadZipFile(f"{name} has more than {max_bytes} bytes")
    return archive.read(name)
