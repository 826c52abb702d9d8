"""Fetch one file over HTTP: goes on where it stopped, checks the published md5, and appears whole or not at all."""

import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError
from .cache import sync_folder

CHUNK = 1 << 16  # bytes
STALL = 30.0  # seconds without a byte before the connection counts as broken
ATTEMPTS = 4  # connections a download may take before the user is asked to run again

Progress = Callable[[int, int | None], None]  # bytes there, bytes in all where known


def download(
    url: str, path: Path, md5: str, *, cure: str, progress: Progress = lambda done, total: None
) -> None:
    """Make ``path`` hold the file with this md5. What arrived stays in ``path.part`` if the connection breaks.

    ``cure`` tells the user what to do without this download. Two processes may ask at once: one fetches, one waits.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(path.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                print(f"fmaml: downloading {url} to {path}", file=sys.stderr)
                _fetch(url, path, md5, progress)
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", error) or error
        raise UserError(
            f"{url}: not downloaded to {path} ({reason}); run again to go on, or {cure}"
        ) from error
    except Refused as error:
        raise UserError(f"{url}: {error}; {cure}") from None


class Refused(Exception):
    """The server answered, with something else than the file."""


def _fetch(url: str, path: Path, md5: str, progress: Progress) -> None:
    part = path.with_name(path.name + ".part")
    resumed = part.exists() and part.stat().st_size > 0
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, urllib.error.HTTPError):
                raise
    found = _md5(part)
    if found != md5:
        part.unlink()
        if resumed:  # the rest may belong to another version of the file than the beginning
            return _fetch(url, path, md5, progress)
        raise Refused(f"the file has md5 {found} where {md5} is published; it was deleted")
    os.replace(part, path)
    sync_folder(path.parent)


def _append(url: str, part: Path, progress: Progress) -> None:
    """One connection: ask for what is still missing in ``part``, and add it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=STALL)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing after what is there: complete, or longer than the file; the md5 tells
            return
        raise
    with answer, open(part, "ab") as file:
        if answer.headers.get_content_type() == "text/html":
            raise Refused("the server sent a web page where a file was expected")
        if answer.status != 206:  # the server knows no ranges: from the beginning
            have = 0
            file.truncate(0)
        _copy(answer, file, have, progress)
        file.flush()
        os.fsync(file.fileno())


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, have: int, progress: Progress) -> None:
    """Copy to the end. A connection that ends too soon is a ConnectionError; what came is in the file."""
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        have += len(chunk)
        progress(have, total)
    if total is not None and have != total:
        raise ConnectionError(f"the connection broke after {have} of {total} bytes")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
