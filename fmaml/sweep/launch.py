"""Starting the process of one run, and what it tells at its end."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from ..config.settings import Config
from ..config.strict_yaml import dump_yaml
from ..files.atomic import write_text_durably
from .record import FAILED, FINISHED, UNFINISHED, Outcome

OUTPUT_FILE = "output.txt"  # what the run prints
STOP_CODES = {128 + signal.SIGTERM, 128 + signal.SIGINT}
TAIL_BYTES = 8192
SPEAKER = "fmaml: "


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        ...

    def terminate(self) -> None:
        """Ask it to stop."""
        ...


class Started(NamedTuple):
    """A run that has a process."""

    process: Process
    folder: Path
    said_before: int  # bytes of its output that are of earlier processes


def launch(folder: Path, config: Config, device: str, threads: int | None) -> Started:
    """Start or continue the run in ``folder``, which is created; OSError if that cannot be."""
    folder.mkdir(exist_ok=True)
    write_text_durably(folder / "config.yaml", dump_yaml(config))
    with (folder / OUTPUT_FILE).open("ab") as output:
        said_before = output.tell()
        return Started(start_process(folder, device, output, threads), folder, said_before)


def start_process(folder: Path, device: str, output: IO[bytes], threads: int | None) -> Process:
    """A process that continues the run in a folder, in a session of its own: a terminal's Ctrl-C is for its parent."""
    command = [sys.executable, "-m", "fmaml.sweep.child", "resume", str(folder), "--device", device]
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # held open as long as this process lives
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def threads_of_each(jobs: int) -> int | None:
    """The threads of each of so many processes; None leaves them as they are: one process takes what it always does."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, len(own) // jobs)


def outcome_of(started: Started, code: int) -> Outcome:
    """How a run stands whose process has ended."""
    if code == 0:
        return Outcome(FINISHED, 0)
    if code in STOP_CODES:
        return Outcome(UNFINISHED)
    return Outcome(FAILED, code, last_words(started, code))


def last_words(started: Started, code: int) -> str:
    """The last line of the message with which the process ended."""
    if code < 0:
        return f"its process was killed ({signal.Signals(-code).name}); if memory ran out, run fewer at a time"
    with (started.folder / OUTPUT_FILE).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(started.said_before, size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.removeprefix(SPEAKER).strip() for line in lines if line.startswith(SPEAKER)]
    return said[-1] if said else next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
