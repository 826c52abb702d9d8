"""Download of one file over HTTP: resumes where it was interrupted and verifies the published MD5."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ...atomic_files import sync_folder
from ...errors import UserError, note
from .folder_lock import folder_lock

_CHUNK = 1 << 16  # bytes read at a time
_TIMEOUT = 30.0  # seconds without data before a connection counts as broken
_MAX_ATTEMPTS = 4  # connections before the user is asked to run again

ProgressCallback = Callable[[int, int | None], None]  # bytes so far, total bytes if the server says


class _DownloadRefused(Exception):
    """The server answered with something other than the file."""


def _no_progress(done: int, total: int | None) -> None:
    pass


def download(url: str, path: Path, md5: str, *, cure: str, progress: ProgressCallback = _no_progress) -> None:
    """Download ``url`` to ``path``, unless that file exists; ``md5`` is its published checksum.

    Until the file is complete its data are in ``path.part``, from which the next call resumes. If several processes
    ask at once, one downloads and the others wait. ``cure`` ends error messages: it says how to do without the
    download. Raises UserError if the server cannot be reached, sends another file, or the disk cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            if not path.exists():
                note(f"downloading {url} to {path}")
                _fetch(url, path, md5, progress)
    except _DownloadRefused as error:
        raise UserError(f"{url}: {error}; {cure}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot download {path} ({reason}); run again to resume, or {cure}") from error


def _fetch(url: str, path: Path, md5: str, progress: ProgressCallback) -> None:
    """Complete ``path.part``, verify it and rename it to ``path``."""
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            _append(url, part, progress)
            break
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            if attempt == _MAX_ATTEMPTS:
                raise
    found = _md5(part)
    if found == md5:
        os.replace(part, path)
        return sync_folder(path.parent)
    part.unlink()
    if not resumed:
        raise _DownloadRefused(f"the file received has md5 {found}, the published one {md5}; it was deleted")
    _fetch(url, path, md5, progress)  # the old part may be of another version of the file: start over, once


def _append(url: str, part: Path, progress: ProgressCallback) -> None:
    """Request the bytes that ``part`` lacks, in one connection, and append them."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # no bytes beyond these: complete or too long, which the MD5 decides
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _DownloadRefused("the server sent a web page instead of the file")
        resuming = response.status == 206  # a server without support for ranges sends the whole file again
        with open(part, "ab" if resuming else "wb") as file:
            _copy(response, file, have if resuming else 0, progress)


def _copy(response: http.client.HTTPResponse, file: BinaryIO, have: int, progress: ProgressCallback) -> None:
    """Copy the response to the file. ConnectionError if it ends too soon; the file then has what was received."""
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        have += len(chunk)
        progress(have, total)
    if total is not None and have != total:
        raise ConnectionError(f"the connection broke after {have} of {total} bytes")
    file.flush()
    os.fsync(file.fileno())


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
