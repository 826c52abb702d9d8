"""Reading of zip archives whose content is not trusted. Nothing is extracted: members are read into memory."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ...errors import UserError
from ...files.regular import check_regular


def zip_or_folder(folder: Path, name: str) -> Path | None:
    """``folder/name.zip``, or else the folder ``folder/name``; None if there is neither.

    The zip has priority because a truncated zip is noticed; a folder may be left over from an interrupted unpacking.
    """
    zipped = folder / f"{name}.zip"
    return zipped if zipped.is_file() else folder / name if (folder / name).is_dir() else None


@contextlib.contextmanager
def open_zip(path: Path, max_bytes: int) -> Iterator[zipfile.ZipFile]:
    """The archive, opened. UserError if it has more than ``max_bytes``, or if it turns out to be damaged while open."""
    try:
        check_regular(path, max_bytes)  # also because reading the names of a million members would take seconds
        with zipfile.ZipFile(path) as archive:
            yield archive
    # RuntimeError: encrypted; NotImplementedError, a RuntimeError: unknown compression; the rest: damaged or truncated
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a whole zip ({error}); copy or download it again") from error


def read_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """The content of a member. BadZipFile if it has more than ``max_bytes``, KeyError if there is no such member.

    Only "deflate" is unpacked piece by piece, up to the size that the archive names; other methods may go far beyond.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{name} is not compressed by deflate")
    if info.file_size > max_bytes:
        raise zipfile.BadZipFile(f"{name} has more than {max_bytes} bytes")
    return archive.read(name)
