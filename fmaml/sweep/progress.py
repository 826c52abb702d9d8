"""What is shown of a sweep while it runs: a line for each run that ends, and in a terminal a bar for each that runs."""

import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from .expand import PlannedRun
from .outcomes import Measured
from .record import FINISHED, UNFINISHED, Outcome
from .table import say, write_number

TAIL = 4096  # bytes of a log that hold its last row
LEAST_WIDTH = 80  # columns: in a narrower terminal the numbers beside a bar would be cut
LOOK_EVERY_S = 0.5


class SweepProgress:
    """Shows how the runs come along; a context manager, open while they run."""

    def __init__(self, console: Console, folder: Path, total: int, rows: dict[str, Measured]) -> None:
        """``total`` runs are to end in ``folder``; what they measured is then in ``rows``."""
        self.console = console
        self.folder = folder
        self.total = total
        self.rows = rows
        self.ended = 0
        self.looked = 0.0
        self.tasks: dict[str, tuple[TaskID, float]] = {}
        shown = console.is_terminal and console.width >= LEAST_WIDTH
        self.bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="ellipsis", no_wrap=True)),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=console,
            transient=True,
            disable=not shown,
        )

    def __enter__(self) -> "SweepProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, run: PlannedRun) -> None:
        """A run has begun."""
        total = run.config["train"]["meta_steps"]
        self.tasks[run.folder] = (self.bar.add_task(run.folder, total=total), time.monotonic())
        if not self.console.is_terminal:
            say(self.console, f"{run.folder}: begun")

    def look(self) -> None:
        """Move the bars to the last step that each run has logged."""
        if self.bar.disable or time.monotonic() - self.looked < LOOK_EVERY_S:
            return
        self.looked = time.monotonic()
        for name, (task, _) in self.tasks.items():
            self.bar.update(task, completed=last_step(self.folder / name / "metrics.jsonl"))

    def end(self, run: PlannedRun, outcome: Outcome) -> None:
        """A run's process has ended."""
        task, started = self.tasks.pop(run.folder)
        self.bar.remove_task(task)
        if outcome.state == UNFINISHED:
            say(self.console, f"{run.folder}: stopped")
            return
        self.ended += 1
        seconds = int(time.monotonic() - started)
        said = results_of(self.rows[run.folder]) if outcome.state == FINISHED else f"failed: {outcome.message}"
        say(self.console, f"{self.ended}/{self.total}  {run.folder}: {said}  in {seconds // 60}:{seconds % 60:02d}")


def results_of(row: Measured) -> str:
    """The results of a run at its last inner step, on one line."""
    scores = {label.partition(" (")[0]: column[-1]["mean"] for label, column in row["results"].items()}
    texts = [f"{label} {write_number(mean, row['style'])}" for label, mean in scores.items()]
    return f"{row['metric']} {', '.join(texts)}"


def last_step(path: Path) -> int:
    """The step of the last whole row of a log; 0 if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().split(b"\n")
        return int(json.loads(lines[-2])["step"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return 0
