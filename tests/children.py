"""Child processes, forked from that of the tests: torch is imported there, so that a child costs milliseconds.

A process that imports torch anew costs seconds of a processor. Only tests about how a process starts need one.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from fmaml.cli.main import main

PATIENCE = 600.0  # seconds a test waits for an event: far more than it takes on a machine that has much else to do
TINY = "train.meta_steps=1 train.validate_tasks=2 eval.tasks=2 eval.steps=1 train.baseline=false".split()


class Child(ForkProcess):
    """A forked process, with those methods of `subprocess.Popen` that tests use."""

    said: Path  # the file to which it prints

    @property
    def pid(self) -> int:
        return super().pid or 0

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.join(timeout)
        if self.exitcode is None:
            raise subprocess.TimeoutExpired("a child", timeout or 0)
        return self.exitcode

    @property
    def returncode(self) -> int | None:
        return self.exitcode


@cache
def warm() -> None:
    """Let a small run import what runs import, so that no child has to."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        assert main(["run", "sinusoid", *TINY, "--device", "cpu", "--out", f"{folder}/out"]) == 0


def start(
    work: Callable[[], int | None],
    stdout: int = 1,
    stderr: int = 2,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """A child that exits with what ``work`` returns, as a program with these standard files would.

    The variables are added to those of the tests. It leads a group of processes of its own.
    """
    warm()

    def program() -> None:
        os.setpgid(0, 0)
        warnings.resetwarnings()  # from here on as Python starts
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(handle, "w", 1, encoding="utf-8", closefd=False) for handle in (1, 2))
        os.environ.update(environment or {})
        os.chdir(cwd or ".")
        sys.exit(work())

    child = Child(target=program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the test runner's other threads, which do nothing
        child.start()
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the child was faster
        os.setpgid(child.pid, child.pid)
    return child


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`fmaml` with these words, in a child that has ended."""
    return ended(lambda: main(list(words)), **options)


def ended(work: Callable[[], int | None], stdin: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """What a child has said that does ``work``, reads ``stdin`` and has ended."""
    with contextlib.ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        child = start(work, out.fileno(), err.fileno(), given.fileno(), **options)
        try:
            code = child.wait(PATIENCE)
        finally:
            child.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess((), code, out.read(), err.read())


def processor_seconds(child: int) -> float:
    """The seconds of a processor that a child has used so far, which other processes leave alone."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
