"""SIGINT, SIGTERM and SIGUSR1 end a run after the step at hand.

The handlers set a flag and no more, so that a second signal is as harmless as the first. `poll` is called where a run
can stop: after each step, and between the chunks of an evaluation.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..errors import Stopped

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_received: list[int] = []


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """Signals wait for `poll`; afterwards they do what they did before. Elsewhere than in the main thread: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.signal(number, _note) for number in CAUGHT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def poll() -> None:
    """Raise Stopped if a signal came; once, so that the way out is not interrupted again."""
    if _received:
        number = _received[0]
        _received.clear()
        raise Stopped(number)


def _note(number: int, frame: object) -> None:
    _received.append(number)
