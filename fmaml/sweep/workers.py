"""Run a sweep's runs in processes, several at a time; each process is a `fmaml resume` command.

Run as a module, this file is such a process. It ends with its sweep, which holds the other end of its standard input.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from ..config.strict_yaml import dump_yaml
from ..files.atomic import write_text_durably
from ..processes.signals import deferred_signals, raise_if_stopped
from .show import SweepProgress
from .state import Sweep, SweepRun

OUTPUT_FILE = "output.txt"  # the run's printed output
STOP_CODES = {128 + signal.SIGTERM, 128 + signal.SIGINT}
POLL_S = 0.1
TAIL_BYTES = 8192
SPEAKER = "fmaml: "


class Worker(NamedTuple):
    """A run with its process."""

    run: SweepRun
    process: subprocess.Popen[bytes]
    output: Path
    earlier_bytes: int  # of the output, from earlier processes


def run_all(sweep: Sweep, folder: Path, jobs: int, shown: SweepProgress, keep: Callable[[], None]) -> None:
    """Start or continue the unfinished runs, ``jobs`` at a time, and call ``keep`` after each has ended.

    A failing run does not stop the others. After a signal, raises Stopped once all processes have saved and ended.
    """
    waiting, workers, threads = sweep.unfinished(), list[Worker](), threads_of_each(jobs)

    def begin(run: SweepRun) -> None:
        shown.begin(run)
        try:
            workers.append(start(run, folder / run.folder, sweep.device, threads))
        except OSError as error:  # of this run only, such as too many processes
            place = error.filename or run.folder
            end(run, 1, f"{place}: the run cannot be started ({error.strerror})")

    def end(run: SweepRun, exit_code: int | None, message: str) -> None:
        run.exit_code, run.message = exit_code, message
        keep()
        shown.end(run)

    def collect() -> None:
        time.sleep(POLL_S)
        for worker in list(workers):
            if (code := worker.process.poll()) is not None:
                workers.remove(worker)
                end(worker.run, *outcome_of(worker, code))

    with deferred_signals():
        try:
            while waiting or workers:
                raise_if_stopped()
                while waiting and len(workers) < jobs:
                    begin(waiting.pop(0))
                shown.look()
                collect()
        finally:  # never leave a process behind
            for worker in workers:
                worker.process.terminate()
            while workers:
                collect()


def start(run: SweepRun, folder: Path, device: str, threads: int | None) -> Worker:
    """Start or continue the run in its ``folder``, created if missing; OSError if that fails."""
    folder.mkdir(exist_ok=True)
    write_text_durably(folder / "config.yaml", dump_yaml(run.config))
    with (folder / OUTPUT_FILE).open("ab") as output:
        earlier_bytes = output.tell()
        return Worker(run, start_process(folder, device, output, threads), folder / OUTPUT_FILE, earlier_bytes)


def start_process(folder: Path, device: str, output: IO[bytes], threads: int | None) -> subprocess.Popen[bytes]:
    """Start a process that continues the run in a folder. It has its own session, so that Ctrl-C reaches only us."""
    return subprocess.Popen(
        [sys.executable, "-m", __name__, "resume", str(folder), "--device", device],
        stdin=subprocess.PIPE,  # held open as long as this process lives
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
        start_new_session=True,
    )


def threads_of_each(jobs: int) -> int | None:
    """The number of threads for each of ``jobs`` processes; None keeps the default."""
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return None
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, len(own) // jobs)


def outcome_of(worker: Worker, code: int) -> tuple[int | None, str]:
    """The exit code of a run (None if it was stopped), and the last line of its message if it failed."""
    if code == 0 or code in STOP_CODES:
        return None if code else 0, ""
    if code < 0:
        name = signal.Signals(-code).name
        return code, f"its process was killed ({name}); if memory ran out, run fewer at a time"
    with worker.output.open("rb") as file:
        file.seek(max(worker.earlier_bytes, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    messages = [line.removeprefix(SPEAKER) for line in lines if line.startswith(SPEAKER)] or lines
    return code, messages[-1] if messages else "it printed nothing"


def stop_with_parent() -> None:
    """When the parent process ends, which closes standard input, stop as on SIGTERM: save, then exit."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, because its lock would block the exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    stop_with_parent()
    runpy.run_module("fmaml", run_name="__main__", alter_sys=True)
