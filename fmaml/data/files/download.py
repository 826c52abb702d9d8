"""Download of one file over HTTP: whole and with its published MD5, or not at all.

It ends whatever the server does: the speed, the time and the size of a download have limits.
"""

import os
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import FileSizeColumn, Progress, TransferSpeedColumn

from ...errors import Error, note
from ...files.atomic import sync_folder
from .cache_folder import folder_lock

_TIMEOUT = 30.0  # seconds without data after which a connection counts as broken
_SLOWEST = 1000  # bytes a second over `_PACE_SECONDS`; a slower server is given up
_PACE_SECONDS = 30.0
_MAX_SECONDS = 7200.0  # of a download
_MAX_BYTES = 500_000_000  # of a file; the largest, CIFAR-100, has 169 million
_PIECE = 4096  # bytes


def download(url: str, path: Path, md5: str, *, cure: str) -> None:
    """Download ``url`` to ``path``, unless that file exists; ``md5`` is its published checksum.

    If several processes ask at once, one downloads and the others wait. ``cure`` ends error messages: it says how to do
    without the download. Raises Error if the server cannot be reached or sends another file, or the disk cannot be
    written.
    """
    import pooch  # imported here because only a download needs it

    pooch.get_logger().setLevel("ERROR")
    fetch: Any = _fetch  # pooch's protocol names the arguments otherwise
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(path.parent):
            if path.exists():
                return
            for leftover in path.parent.glob("tmp????????"):  # pooch's, of a process that was killed
                leftover.unlink()
            note(f"downloading {url} to {path}")
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch)
            path.chmod(path.parent.stat().st_mode & 0o666)  # pooch's temporary files are for their owner alone
            sync_folder(path.parent)
    except (OSError, ValueError) as error:  # pooch raises ValueError for another checksum; errors of HTTP are OSErrors
        raise Error(f"{url}: cannot download {path} ({_reason(error)}); run again, or {cure}") from error


def _reason(error: BaseException) -> str:
    """The first cause, without the layers of the HTTP libraries around it; its first sentence."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition(". ")[0]


def _fetch(url: str, file: str, _: object) -> None:
    """Write what ``url`` delivers to the file. TimeoutError if the server is too slow or takes too long.

    Each wait for bytes has a limit, but headers and bodies may trickle: so another thread waits, and can be given up.
    """
    begun, before = time.monotonic(), 0
    console = Console(stderr=True)
    columns = ("downloading", FileSizeColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with open(file, "wb") as opened, bar:  # a transfer that was given up ends at its next write, the file being closed
        transfer = _Transfer(url, opened, bar)
        transfer.start()
        while not transfer.ended_within(_PACE_SECONDS):
            if transfer.received - before < _SLOWEST * _PACE_SECONDS:
                raise TimeoutError(f"fewer than {_SLOWEST} bytes a second came")
            if time.monotonic() - begun > _MAX_SECONDS:
                raise TimeoutError(f"not complete after {_MAX_SECONDS:g} s")
            before = transfer.received
        if transfer.error:
            raise transfer.error
        opened.flush()
        os.fsync(opened.fileno())


class _Transfer(threading.Thread):
    """Copies what a URL delivers to a file, and counts it."""

    def __init__(self, url: str, file: BinaryIO, bar: Progress) -> None:
        super().__init__(daemon=True)
        self.url, self.file, self.bar = url, file, bar
        self.received = 0  # bytes
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.copy()
        except Exception as error:
            self.error = error

    def copy(self) -> None:
        """OSError if the server has something other than the file."""
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
