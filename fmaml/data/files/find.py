"""Find data files: in the given root, or else in $FMAML_DATA, then in the user's cache folder."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...errors import Error, MissingData
from ...files.cache_folder import cache_folder, writing_allowed
from .download import download

Found = TypeVar("Found")


class Download(NamedTuple):
    """A file that can be downloaded."""

    url: str
    path: str  # relative to the cache folder
    md5: str


class DataFiles(NamedTuple):
    """The files of a data set, their possible places and their downloads."""

    name: str  # the data set's, for messages
    folders: tuple[str, ...]  # names of subfolders to look in
    expected: str  # the layouts accepted, for messages
    downloads: tuple[Download, ...] = ()
    builtin: str = "glyphs"  # a source that needs no files, for messages

    @property
    def cure(self) -> str:
        """The end of messages about missing files."""
        return (
            "name the folder that holds it by data.root=FOLDER or FMAML_DATA=FOLDER, "
            f"or take data.name={self.builtin}, which needs no file"
        )


def search_folders(root: str | None, names: Iterable[str]) -> list[Path]:
    """The folders to search, in order: each root, then its subfolders ``names``.

    If ``root`` is given, no other is searched, so that no other data are used silently. Raises Error if ``root`` or
    $FMAML_DATA is not a valid path.
    """
    given = root if root is not None else os.environ.get("FMAML_DATA")
    roots = [_expand_user(given)] if given else []
    if root is None:
        roots.append(cache_folder())
    return [folder for base in roots for folder in (base, *(base / name for name in names))]


def _expand_user(folder: str) -> Path:
    """Replace ~ and ~user in a folder; Error if there is no such user or the path is not valid."""
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
    """Call ``find_in`` with each of the `search_folders`; return the first result that is not None, or None.

    Raises Error if ``root`` is not a valid path.
    """
    found = (find_in(folder) for folder in search_folders(root, names))
    return next((item for item in found if item is not None), None)


def find_or_download(
    find_in: Callable[[Path], Found | None], root: str | None, files: DataFiles, *, allow_download: bool = False
) -> Found:
    """Find data, see `find_data`. If none is found and no ``root`` was given, download the files to the cache folder.

    Raises Error if nothing is found and no download is possible or allowed, or if the download fails.
    """
    found = find_data(find_in, root, files.folders)
    if found is None and root is None and allow_download and files.downloads and not writing_allowed():
        raise Error(
            f"no {files.name} on this computer, and a dry run downloads nothing; remove --dry-run, or {files.cure}"
        )
    if found is None and root is None and allow_download:
        for url, path, md5 in files.downloads:
            download(url, cache_folder() / path, md5, cure=files.cure)
        found = find_data(find_in, root, files.folders)
    if found is None:
        raise missing(files, root)
    return found


def missing(files: DataFiles, root: str | None) -> MissingData:
    """The error for missing files: the folders searched, the expected files, and the cures."""
    variable = os.environ.get("FMAML_DATA")
    unset = "data.root is not set" + (f", FMAML_DATA is {variable}" if variable else "")
    given = unset if root is None else f"data.root = {root}"
    searched = ", ".join(str(folder) for folder in search_folders(root, files.folders))
    return MissingData(
        f"{given}: no {files.name} in {searched}; expected {files.expected}. Put it there, or {files.cure}"
    )
