"""Child processes, forked from that of the tests: torch is imported there, so that a child costs milliseconds.

A process that imports torch anew costs seconds of a processor. Only tests about how a process starts need one.
"""

import contextlib
import faulthandler
import io
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from fmaml.cli.main import main

START = subprocess.run
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
    environment: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
) -> Child:
    """A child that exits with what ``work`` returns, as a program with these standard files would.

    The variables are added to those of the tests, and None takes one away. It leads a group of processes of its own.
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
        for name, value in (environment or {}).items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        os.chdir(cwd or ".")
        faulthandler.register(signal.SIGUSR2)  # where it stands; `dump_traceback_later` has a thread, lost in a fork
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
        return subprocess.CompletedProcess((), code, read_again(out), read_again(err))


def run(
    command: Sequence[Any], *, capture_output: bool = False, stdout: Any = None, stderr: Any = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run` of a text, but a script or a module is run by a child of this Python; all else is started."""
    program, *words = map(str, command)
    if program != sys.executable or words[0] == "-c":
        return START(command, capture_output=capture_output, stdout=stdout, stderr=stderr, **options)
    environment = options.get("env") or os.environ
    changes = {**dict.fromkeys(os.environ.keys() - environment.keys()), **environment}
    with contextlib.ExitStack() as stack:
        captured = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in "oe"]
        if capture_output:
            stdout, stderr = captured
        out = 1 if stdout is None else stdout.fileno()
        err = 2 if stderr is None else out if stderr == subprocess.STDOUT else stderr.fileno()
        child = start(partial(script, words), out, err, environment=changes, cwd=options.get("cwd"))
        try:
            code = child.wait(options.get("timeout", PATIENCE))
        finally:
            child.kill()
        ended = subprocess.CompletedProcess(command, code, *(read_again(file) for file in captured))
    if options.get("check"):
        ended.check_returncode()
    return ended


def read_again(file: Any) -> str:
    file.seek(0)
    return file.read()


def script(words: list[str]) -> None:
    """In a child: what Python does that is started with these words."""
    module = words[0] == "-m"
    sys.argv = words[module:]
    if module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def processor_seconds(child: int) -> float:
    """The seconds of a processor that a child has used so far, which other processes leave alone."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
