"""Download of one file over HTTP: resumes where it was interrupted and verifies the published MD5.

It ends whatever the server does: the speed, the time and the size of a download have limits.
"""

import hashlib
import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ...errors import UserError, note
from ...files.atomic import sync_folder
from ...files.regular import UnsuitableFile, check_regular
from .folder_lock import folder_lock

_CHUNK = 1 << 16  # bytes read at a time
_TIMEOUT = 30.0  # seconds without data before a connection counts as broken
_HEADER_SECONDS = 60.0  # for connecting, redirections and the headers
_SLOWEST = 1000  # bytes a second over `_PACE_SECONDS`; a slower connection counts as broken
_PACE_SECONDS = 30.0
_MAX_ATTEMPTS = 4  # connections before the user is asked to run again
_MAX_SECONDS = 7200.0  # of a call, after which the user is asked to run again
_MAX_BYTES = 500_000_000  # of a file; the largest, CIFAR-100, has 169 million

ProgressCallback = Callable[[int, int | None], None]  # bytes so far, total bytes if the server says


class _DownloadRefused(Exception):
    """The server answered with something other than the file."""


class _TimeIsUp(OSError):
    """The download took longer than `_MAX_SECONDS`."""


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
    resumed = _is_part(part)
    deadline = time.monotonic() + _MAX_SECONDS
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            _append(url, part, deadline, progress)
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


def _is_part(part: Path) -> bool:
    """Whether there is a part to resume from; one that is no regular file, or larger than any data set, is deleted."""
    try:
        check_regular(part, _MAX_BYTES)
    except FileNotFoundError:
        return False
    except UnsuitableFile:
        part.unlink()
        return False
    return True


def _append(url: str, part: Path, deadline: float, progress: ProgressCallback) -> None:
    """Request the bytes that ``part`` lacks, in one connection, and append them."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # no bytes beyond these: complete or too long, which the MD5 decides
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _DownloadRefused("the server sent a web page instead of the file")
        resuming = response.status == 206  # a server without support for ranges sends the whole file again
        try:
            with open(part, "ab" if resuming else "wb") as file:
                _copy(response, file, have if resuming else 0, deadline, progress)
        except _DownloadRefused:
            part.unlink()
            raise


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """The response to a request. TimeoutError if its headers are not there within `_HEADER_SECONDS`.

    urllib limits each wait for bytes, but not their sum, so that headers could trickle in for ever.
    """
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=_TIMEOUT))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_HEADER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"timed out: no answer within {_HEADER_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, have: int, deadline: float, progress: ProgressCallback
) -> None:
    """Copy the response to the file, which gets all that is received, even if it ends in an error.

    ConnectionError if the response ends too soon, TimeoutError if it is too slow, _TimeIsUp after the ``deadline``,
    _DownloadRefused if it is too large.
    """
    total = None if response.length is None else have + response.length  # None, too, for a length that is no number
    pace = _Pace()
    while total is None or have < total:
        if max(have, total or 0) > _MAX_BYTES:
            raise _DownloadRefused(f"the server sends more than {_MAX_BYTES} bytes")
        chunk = response.read1(_CHUNK)  # what is there, where `read` would wait for all of it
        if not chunk:
            break
        file.write(chunk)
        have += len(chunk)
        progress(have, total)
        pace.check(len(chunk))
        if time.monotonic() > deadline:
            raise _TimeIsUp(f"not complete after {_MAX_SECONDS:g} s")
    if total is not None and have != total:
        raise ConnectionError(f"the connection broke after {have} of {total} bytes")
    file.flush()
    os.fsync(file.fileno())


class _Pace:
    """Measures a connection's speed over one stretch of `_PACE_SECONDS` after the other."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.received = 0  # bytes since then

    def check(self, received: int) -> None:
        """Count the bytes ``received``; TimeoutError if the stretch that they end brought too few."""
        self.received += received
        now = time.monotonic()
        if now - self.begun < _PACE_SECONDS:
            return
        if self.received < _SLOWEST * (now - self.begun):
            raise TimeoutError(f"fewer than {_SLOWEST} bytes a second came")
        self.begun, self.received = now, 0


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
