"""Download one file over HTTP, complete and with its published MD5, or not at all.

Every download ends: its speed, time and size have limits.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import FileSizeColumn, Progress, TransferSpeedColumn

from ...errors import Error, note
from ...files.atomic import sync_folder
from ...files.cache_folder import folder_lock
from ...files.console import CleanConsole

_TIMEOUT = 30.0  # seconds without data after which a connection counts as broken
_SLOWEST = 1000  # bytes a second over `_PACE_SECONDS`; give up on slower servers
_PACE_SECONDS = 30.0
_MAX_SECONDS = 7200.0  # of a download
_MAX_BYTES = 500_000_000  # of a file; the largest, CIFAR-100, has 169 million
_PIECE = 4096  # bytes


def download(url: str, path: Path, md5: str, *, cure: str) -> None:
    """Download ``url`` to ``path``, unless that file exists; ``md5`` is its published checksum.

    If several processes call this at once, one downloads and the others wait. ``cure`` ends error messages: how to do
    without the download. Raises Error if the server cannot be reached or sends another file, or the disk cannot be
    written.
    """
    import pooch  # imported here because only a download needs it

    pooch.get_logger().setLevel("ERROR")
    fetch: Any = _fetch  # pooch's protocol has other names for the arguments
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            if path.exists():
                return
            for leftover in path.parent.glob("tmp????????"):  # pooch's temporary files, of killed processes
                leftover.unlink()
            note(f"downloading {url} to {path}")
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch)
            path.chmod(path.parent.stat().st_mode & 0o666)  # pooch makes files that only their owner can read
            sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: wrong checksum; HTTP errors are OSErrors
        raise Error(f"{url}: cannot download {path} ({_reason(error)}); run again, or {cure}") from error


def _reason(error: BaseException) -> str:
    """The first sentence of the first cause, without the layers of HTTP libraries around it."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition(". ")[0]


def _fetch(url: str, file: str, _: object) -> None:
    """Write the response of ``url`` to the file. TimeoutError if the server is too slow or takes too long.

    `requests` only limits each wait for bytes, so a server may trickle for ever. Another thread therefore waits for it,
    and is abandoned if too slow.
    """
    begun, before = time.monotonic(), 0
    console = CleanConsole(stderr=True)
    columns = ("downloading", FileSizeColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with open(file, "wb") as opened, bar:  # an abandoned transfer ends at its next write: the file is closed
        transfer = _Transfer(url, opened, bar)
        transfer.start()
        while not transfer.ended_within(_PACE_SECONDS):
            if transfer.received - before < _SLOWEST * _PACE_SECONDS:
                raise TimeoutError(f"fewer than {_SLOWEST} bytes a second arrived")
            if time.monotonic() - begun > _MAX_SECONDS:
                raise TimeoutError(f"not complete after {_MAX_SECONDS:g} s")
            before = transfer.received
        if transfer.error:
            raise transfer.error
        opened.flush()
        os.fsync(opened.fileno())


class _Transfer(threading.Thread):
    """A thread that copies the response of a URL to a file, and counts its bytes."""

    def __init__(self, url: str, file: BinaryIO, bar: Progress) -> None:
        super().__init__(daemon=True)
        self.url, self.file, self.bar = url, file, bar
        self.received = 0  # bytes
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.copy()
        except Exception as error:  # libraries of HTTP raise errors of any kind, such as for a redirect to nonsense
            self.error = error if isinstance(error, OSError | ValueError) else OSError(str(error))

    def copy(self) -> None:
        """Copy; raises OSError if the server sends a web page or too much."""
        import requests

        task = self.bar.add_task("", total=None)
        with requests.get(self.url, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise OSError("the server sent a web page instead of the file")
            for piece in response.iter_content(_PIECE):
                self.received += len(piece)
                if self.received > _MAX_BYTES:
                    raise OSError(f"the server sends more than {_MAX_BYTES} bytes")
                self.file.write(piece)
                self.bar.advance(task, len(piece))

    def ended_within(self, seconds: float) -> bool:
        self.join(seconds)
        return not self.is_alive()
