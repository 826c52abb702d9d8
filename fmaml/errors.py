"""What is told to the person at the keyboard: exceptions, with what the process exits with, and notes."""

import sys
from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]  # hears one line that is no error


class UserError(Exception):
    """Something the user can put right. The message says where, what was given, the rule, and the cure."""

    code = 2


class RunFailed(UserError):
    """A run that cannot go on, through no slip of the user's: numbers gone wrong, a full disk."""

    code = 1


class Stopped(Exception):
    """A signal asked for an end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum  # as a shell reports it: 130 SIGINT, 143 SIGTERM, 138 SIGUSR1 on Linux


def note(line: str) -> None:
    """One line on standard error that is no error."""
    print(f"fmaml: {line}", file=sys.stderr)
