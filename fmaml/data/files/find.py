"""Where data files are looked for: the root given; otherwise $FMAML_DATA, then the user's cache folder."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...errors import Error, MissingData
from .cache_folder import cache_folder, writing_allowed
from .download import download

Found = TypeVar("Found")


class Download(NamedTuple):
    """A file that can be downloaded."""

    url: str
    path: str  # where it goes, relative to the cache folder
    md5: str


class DataFiles(NamedTuple):
    """The files of a data set: where they may be and where to get them."""

    name: str  # of the data set, for messages
    folders: tuple[str, ...]  # names of subfolders to look in
    expected: str  # the layouts accepted, for messages
    downloads: tuple[Download, ...] = ()
    builtin: str = "glyphs"  # a source that needs no files, for messages

    @property
    def cure(self) -> str:
        """What the user can do if the files are not found."""
        return (
            "name the folder that holds it by data.root=FOLDER or FMAML_DATA=FOLDER, "
            f"or take data.name={self.builtin}, which needs no file"
        )


def search_folders(root: str | None, names: Iterable[str]) -> list[Path]:
    """Every folder to look in, in order: each root itself, then its subfolders called one of ``names``.

    A given ``root`` is the only one, so that no other data are used silently in its place. Error if it, or
    $FMAML_DATA, cannot be the name of a folder.
    """
    given = root if root is not None else os.environ.get("FMAML_DATA")
    roots = [_expand_user(given)] if given else []
    if root is None:
        roots.append(cache_folder())
    return [folder for base in roots for folder in (base, *(base / name for name in names))]


def _expand_user(folder: str) -> Path:
    """The folder with ~ and ~user replaced; Error if there is no such user or the name is not a valid path."""
    try:
        path = Path(folder).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise Error(
            f"data.root = {folder[:60]}: not a folder's name ({error}); name a folder by data.root=FOLDER or "
            f"FMAML_DATA=FOLDER"
        ) from error
    return path


def find_data(find_in: Callable[[Path], Found | None], root: str | None, names: Iterable[str]) -> Found | None:
    """The result of ``find_in`` for the first of the `search_folders` where it is not None; None if there is none.

    ``find_in`` gets a folder and returns what it finds there. Error if ``root`` cannot be the name of a folder.
    """
    found = (find_in(folder) for folder in search_folders(root, names))
    return next((item for item in found if item is not None), None)


def find_or_download(
    find_in: Callable[[Path], Found | None], root: str | None, files: DataFiles, *, allow_download: bool = False
) -> Found:
    """What `find_data` finds; if nothing and no ``root`` was given, the files are downloaded to the cache folder first.

    Error if there is nothing and no download is possible or allowed, or if the download fails.
    """
    found = find_data(find_in, root, files.folders)
    if found is None and root is None and allow_download and files.downloads and not writing_allowed():
        raise Error(
            f"no {files.name} on this computer, and a dry run downloads nothing; leave out --dry-run, or {files.cure}"
        )
    if found is None and root is None and allow_download:
        for url, path, md5 in files.downloads:
            download(url, cache_folder() / path, md5, cure=files.cure)
        found = find_data(find_in, root, files.folders)
    if found is None:
        raise missing(files, root)
    return found


def missing(files: DataFiles, root: str | None) -> MissingData:
    """The error for files that were not found: where they were looked for, what was expected, and the cures."""
    variable = os.environ.get("FMAML_DATA")
    unset = "data.root is not set" + (f", FMAML_DATA is {variable}" if variable else "")
    given = unset if root is None else f"data.root = {root}"
    searched = ", ".join(str(folder) for folder in search_folders(root, files.folders))
    return MissingData(
        f"{given}: no {files.name} in {searched}; expected {files.expected}. Put it there, or {files.cure}"
    )
