"""Standard output of a run, which outlives its reader: a closed pipe or terminal must not cost what was trained."""

import os
import sys
from typing import Any, TextIO


class LastingOutput:
    """A text stream that goes on as /dev/null once it cannot be written: its reader, such as `head`, has gone."""

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
        """Lead the stream's descriptor to /dev/null, so that what is buffered does not fail again at exit."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.stream.fileno())
        os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def lasting_stdout() -> Any:
    """Standard output that a run can write to whatever becomes of its reader."""
    return LastingOutput(sys.stdout)
