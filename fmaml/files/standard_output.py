"""Keep a run alive if the reader of its standard output, a pipe or a terminal, closes."""

import os
import sys
from typing import Any, TextIO


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
    """Standard output that stays writable when its reader ends."""
    return PipeSafeOutput(sys.stdout)
