"""Fetch one file over HTTP: goes on where it stopped, checks the published md5, comes whole or not at all."""

import contextlib
import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ...atomic_files import sync_folder
from ...errors import UserError

CHUNK = 1 << 16  # bytes
STALL = 30.0  # seconds without a byte before a connection counts as broken
ATTEMPTS = 4  # connections before the user is asked to run again

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if the server says


class Refused(Exception):
    """The server answered, but not with the file."""


def _silent(done: int, total: int | None) -> None:
    pass


def download(url: str, path: Path, md5: str, *, cure: str, progress: Progress = _silent) -> None:
    """Make ``path`` hold the file with this md5; if the connection breaks, what came stays in ``path.part``.

    ``cure`` tells the user how to do without. Of two processes that ask at once one fetches, the other waits.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            if not path.exists():
                print(f"fmaml: downloading {url} to {path}", file=sys.stderr)
                _fetch(url, path, md5, progress)
    except Refused as error:
        raise UserError(f"{url}: {error}; {cure}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot fetch {path} ({reason}); run again to go on, or {cure}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the folder to ourselves; the lock is on the folder, so that no lock file is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the md5 still guards the result
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(url: str, path: Path, md5: str, progress: Progress) -> None:
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(url, part, progress)
            break
        except (ConnectionError, TimeoutError, http.client.HTTPException):
            if attempt == ATTEMPTS:
                raise
    found = _md5(part)
    if found == md5:
        os.replace(part, path)
        return sync_folder(path.parent)
    part.unlink()
    if not resumed:
        raise Refused(f"what came has md5 {found}, the published one is {md5}; it was deleted")
    _fetch(url, path, md5, progress)  # the part may have been of another version of the file: once more, afresh


def _append(url: str, part: Path, progress: Progress) -> None:
    """One connection: ask for what ``part`` lacks, and add it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=STALL)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing beyond what is there: complete or too long; the md5 tells
            return
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise Refused("the server sent a web page in place of the file")
        resuming = answer.status == 206  # a server without ranges sends the whole again
        with open(part, "ab" if resuming else "wb") as file:
            _copy(answer, file, have if resuming else 0, progress)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, have: int, progress: Progress) -> None:
    """Copy to the end; a connection that ends too soon is a ConnectionError, and what came is in the file."""
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    while chunk := answer.read(CHUNK):
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
