"""Exceptions that end the command line, each with its exit code, and notes on standard error."""

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import TypeAlias

Notify: TypeAlias = Callable[[str], None]  # receives one line for the user that is not an error


class UserError(Exception):
    """Something the user can put right. The message says where, what was given, the rule, and the cure."""

    code = 2


class MissingData(UserError):
    """The files of a data set are not on this computer."""


class RunFailed(UserError):
    """A run that cannot continue for a reason outside its settings, such as NaN or a full disk."""

    code = 1


class Ended(RunFailed):
    """A run that ends because of what another of its processes tells.

    This one waits before it ends: the launcher stops all processes when it sees the first one end, and that must not
    be before the other has spoken. ``message`` is for the case that nobody has stopped this process by then.
    """

    grace_s = 10.0

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class Stopped(Exception):
    """A signal asked the run to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum  # the shell's convention: 130 for SIGINT, 143 for SIGTERM, 138 for SIGUSR1 on Linux


_silent = False


@contextlib.contextmanager
def muted() -> Generator[None]:
    """Within it notes are not printed: another process prints them."""
    global _silent
    _silent = True
    try:
        yield
    finally:
        _silent = False


def note(line: str) -> None:
    """Print one line, which is not an error, on standard error."""
    if _silent:
        return
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"fmaml: {line}", file=sys.stderr)
