"""Stop a run after the current step on SIGINT, SIGTERM, SIGUSR1 or SIGHUP (a closed terminal).

Windows has only SIGINT, SIGTERM and SIGBREAK (Ctrl+Break).

The handlers only record the signal, so that a second one does no harm. A run calls `raise_if_stopped` after each step,
and between the chunks of an evaluation. A process of `torchrun` then also stops if its launcher is gone, as after
SIGTERM: a killed launcher cannot send a signal.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from ..errors import Stopped, note

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)  # depends on the system
)
_received: list[int] = []
_launcher = 0  # the id of torchrun's process; 0: there is none, or it is known to be gone


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Record stop signals for `raise_if_stopped`, and restore their handlers afterwards.

    Only the main thread can set handlers; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _launcher
    _received.clear()
    _launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0
    handlers = {number: signal.signal(number, _record) for number in STOP_SIGNALS if not _kept_by_nohup(number)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _received.clear()
        _launcher = 0


def raise_if_stopped() -> None:
    """Raise Stopped if a signal was recorded, and clear it, so that saving afterwards is not interrupted."""
    if (number := received_signal()) is not None:
        _received.clear()
        raise Stopped(number)


def received_signal() -> int | None:
    """The first recorded signal, if any; SIGTERM if the launcher is gone."""
    global _launcher
    if _launcher and os.getppid() != _launcher:
        _launcher = 0
        note("the launcher is gone: killed; the run saves and ends")
        _received.append(signal.SIGTERM)
    return _received[0] if _received else None


def _kept_by_nohup(number: signal.Signals) -> bool:
    """Whether `nohup` started this process, which must then survive its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def _record(number: int, frame: object) -> None:
    _received.append(number)
