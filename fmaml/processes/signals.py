"""SIGINT, SIGTERM, SIGUSR1 and SIGHUP, of a closed terminal, stop a run after the current step.

Windows has of these only the first two, and SIGBREAK, of Ctrl+Break.

The handlers only record the signal, so that a second one does no harm. `raise_if_stopped` is called where a run can
stop: after each step, and between the chunks of an evaluation.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..errors import Stopped

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)  # on this system
)
_received: list[int] = []


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Record stop signals for `raise_if_stopped`, and restore their handlers afterwards.

    Only the main thread can set handlers; in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    handlers = {number: signal.signal(number, _record) for number in STOP_SIGNALS if not _kept_by_nohup(number)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _received.clear()


def raise_if_stopped() -> None:
    """Raise Stopped if a signal was recorded, and forget it, so that saving afterwards is not interrupted."""
    if _received:
        number = _received[0]
        _received.clear()
        raise Stopped(number)


def received_signal() -> int | None:
    """The first signal that was recorded, if any."""
    return _received[0] if _received else None


def _kept_by_nohup(number: signal.Signals) -> bool:
    """Whether `nohup` started this process, so that it outlives its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def _record(number: int, frame: object) -> None:
    _received.append(number)
