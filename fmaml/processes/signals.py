"""Stop a run after the current step on SIGINT, SIGTERM, SIGUSR1 or SIGHUP (a closed terminal).

Windows has only SIGINT, SIGTERM and SIGBREAK (Ctrl+Break).

The handlers only record the signal, so that a second one does no harm. A run calls `raise_if_stopped` after each step,
and between the chunks of an evaluation.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..errors import Stopped

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)  # depends on the system
)
_received: list[int] = []


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Record stop signals for `raise_if_stopped`, and restore their handlers afterwards.

    Only the main thread can set handlers; in other threads this does nothing.
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
    """Raise Stopped if a signal was recorded, and clear it, so that saving afterwards is not interrupted."""
    if _received:
        number = _received[0]
        _received.clear()
        raise Stopped(number)


def received_signal() -> int | None:
    """The first recorded signal, if any."""
    return _received[0] if _received else None


def _kept_by_nohup(number: signal.Signals) -> bool:
    """Whether `nohup` started this process, which must then survive its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def _record(number: int, frame: object) -> None:
    _received.append(number)
