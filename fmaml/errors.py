"""Exceptions that end the command line with a message, and notes on standard error."""

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import TypeAlias

Notify: TypeAlias = Callable[[str], None]  # receives one line for the user that is not an error


class Error(Exception):
    """A mistake that the user can correct. The message gives the place, the value, the rule and the cure.

    >>> import fmaml
    >>> try:
    ...     fmaml.load("omniglott")
    ... except fmaml.Error as error:
    ...     print(error)
    omniglott: no such file, and no model of that name; did you mean omniglot? `fmaml ls models` lists them
    """


class MissingData(Error):
    """The files of a data set are not on this computer."""


class RunFailed(Error):
    """A run that cannot continue for a reason outside its settings, such as NaN or a full disk."""


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
        self.signum = signum


def exit_code(end: Error | Stopped) -> int:
    """The exit code of a command that ends by it: 2 for a wrong request, 1 for a failed run, 128 + n for signal n."""
    if isinstance(end, Stopped):
        return 128 + end.signum
    return 1 if isinstance(end, RunFailed) else 2


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
