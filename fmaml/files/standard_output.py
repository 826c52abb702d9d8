"""The standard streams of a command: text without control characters, and output that may lose its reader."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from .plain_text import printable


class CleanStream:
    """A text stream that replaces control characters, such as escape sequences in the names of data."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # by this name rich's consoles find it; see `fmaml.files.console`

    def write(self, text: str) -> int:
        return self.rich_proxied_file.write(printable(text, "\t\n"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def clean_streams() -> Iterator[None]:
    """Clean all text that is printed to standard output and standard error within this context."""
    out, err = (
        cast(TextIO, stream and CleanStream(stream)) for stream in (sys.stdout, sys.stderr)
    )  # None in a process without
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


class PipeSafeOutput:
    """A text stream that becomes /dev/null once writing fails because its reader, such as `head`, has ended."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._discard()

    def _discard(self) -> None:
        """Redirect the stream's descriptor to /dev/null, so that flushing its buffer at exit does not fail again."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def pipe_safe_stdout() -> Any:
    """Standard output for a console, which stays writable when its reader ends."""
    return PipeSafeOutput(getattr(sys.stdout, "rich_proxied_file", sys.stdout))
