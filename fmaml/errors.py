"""Exceptions that end the command line with a message, notes on standard error, and text that is safe to print."""

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import TypeAlias
from unicodedata import category

Notify: TypeAlias = Callable[[str], None]  # receives one line for the user that is not an error


class Error(Exception):
    """A mistake that the user can correct. The message gives the place, the value, the rule and the cure.

    It has the lines given. In each, line ends become spaces and other control characters a replacement character.

    >>> import fmaml
    >>> try:
    ...     fmaml.load("omniglott")
    ... except fmaml.Error as error:
    ...     print(error)
    omniglott: no such file, and no model of that name; did you mean omniglot? `fmaml ls models` lists them
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(clean_line, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class MissingData(Error):
    """The files of a data set are not on this computer."""


class RunFailed(Error):
    """A run that cannot continue for a reason outside its settings, such as NaN or a full disk."""


class Ended(RunFailed):
    """A run that ends because another of its processes failed.

    The launcher stops all processes as soon as one ends. So this process waits ``grace_s`` seconds, to let the other
    report its error first. ``message`` is printed only if this process has not been stopped by then.
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
    """The exit code of a command: 2 for a wrong request, 1 for a failed run, 128 + n for signal n."""
    if isinstance(end, Stopped):
        return 128 + end.signum
    return 1 if isinstance(end, RunFailed) else 2


_silent = False


@contextlib.contextmanager
def muted() -> Generator[None]:
    """Print no notes within this context: another process prints them."""
    global _silent
    _silent = True
    try:
        yield
    finally:
        _silent = False


def note(line: str) -> None:
    """Print a line on standard error that is not an error."""
    if _silent:
        return
    with contextlib.suppress(OSError):  # such as a closed pipe
        print(f"fmaml: {clean_line(line)}", file=sys.stderr)


def printable(text: str, kept: str = "\t") -> str:
    """Replace control characters, such as escape sequences, but those in ``kept``; also names that are not UTF-8."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in kept or category(c) == "Zs" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown)


def clean_line(text: str) -> str:
    """Text from data or from other programs as one line that is safe to print."""
    return printable(" ".join(text.splitlines()))
