"""Files in a zip or a folder, as users have them. A zip is not trusted, and nothing is extracted."""

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
    """``folder/name.zip``, or else the folder ``folder/name``; None if there is neither.

    The zip has priority because a truncated zip is noticed; a folder may be left over from an interrupted unpacking.
    """
    zipped = folder / f"{name}.zip"
    return zipped if zipped.is_file() else folder / name if (folder / name).is_dir() else None


Read = Callable[[str, int], bytes]  # the name of a file, and its largest size in bytes -> its content


@contextlib.contextmanager
def open_files(path: Path, max_bytes: int) -> Iterator[tuple[Iterable[str], Read]]:
    """The names of the files in a zip or a folder, which begin with the folder's own name, and a function to read one.

    Error if a zip has more than ``max_bytes``, or if anything turns out to be damaged, too large or absent.
    """
    try:
        if path.is_dir():
            yield _names(path), lambda name, most: read_regular(path.parent / name, most)
        else:
            check_regular(path, max_bytes)  # also because reading the names of a million members would take seconds
            with zipfile.ZipFile(path) as archive:
                yield archive.namelist(), partial(_read_member, archive)
    # KeyError: absent; RuntimeError: encrypted, or compressed in an unknown way; the rest: damaged
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError) as error:
        why = f"{path}: not a whole zip ({error})"
        if isinstance(error, OSError) and error.filename:
            why = f"{error.filename}: {error.strerror}"
        raise Error(f"{why}; copy or download it again") from error


def _names(folder: Path) -> Iterator[str]:
    for base, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(base, name), folder.parent) for name in names)


def _read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Only "deflate" is unpacked piece by piece, up to the size in the archive; other methods may go far beyond it."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{name} is not compressed by deflate")
    if info.file_size > max_bytes:
        raise zipfile.BadZipFile(f"{name} has more than {max_bytes} bytes")
    return archive.read(name)
