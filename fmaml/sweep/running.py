"""Runs what is left of a sweep, so many processes at a time; a signal stops all of them after the step at hand."""

import time
from collections.abc import Callable
from pathlib import Path

from ..processes.signals import deferred_signals, raise_if_stopped
from ..sweep import launch
from .expand import PlannedRun
from .launch import Started, outcome_of, threads_of_each
from .progress import SweepProgress
from .record import FAILED, FINISHED, Outcome, Sweep

POLL_S = 0.05

Keep = Callable[[PlannedRun, Outcome], Outcome]  # writes down how a run stands whose process has ended


def run_rest(sweep: Sweep, folder: Path, jobs: int, shown: SweepProgress, keep: Keep) -> None:
    """Start every run that is not finished, and wait for all; ``keep`` is told of each end.

    One that fails stops no other. Raises Stopped, once all processes have saved and ended, if a signal came.
    """
    waiting = [run for run in sweep.runs if sweep.outcomes[run.folder].state != FINISHED]
    running: list[tuple[PlannedRun, Started]] = []
    threads = threads_of_each(jobs)

    def ended(run: PlannedRun, outcome: Outcome) -> None:
        shown.end(run, keep(run, outcome))

    def begin(run: PlannedRun) -> None:
        shown.begin(run)
        try:
            running.append((run, launch.launch(folder / run.folder, run.config, sweep.device, threads)))
        except OSError as error:  # of this run alone, such as too many processes
            place = error.filename or run.folder
            ended(run, Outcome(FAILED, 1, f"{place}: the run cannot be started ({error.strerror})"))

    def collect() -> None:
        for run, started in list(running):
            code = started.process.poll()
            if code is not None:
                running.remove((run, started))
                ended(run, outcome_of(started, code))

    with deferred_signals():
        try:
            while waiting or running:
                raise_if_stopped()
                while waiting and len(running) < jobs:
                    begin(waiting.pop(0))
                collect()
                shown.look()
                time.sleep(POLL_S)
        finally:  # whatever ends this, no process is left behind
            for _, started in running:
                started.process.terminate()
            while running:
                collect()
                time.sleep(POLL_S)
