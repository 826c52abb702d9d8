"""The log of a run: metrics.jsonl with one JSON object a line, and a progress bar or plain lines."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from ..checkpoints.folder_watch import CheckFolder
from ..data.source import Metric
from ..files.atomic import write_durably
from ..files.json_files import nan_to_null
from ..files.plain_text import minutes_and_seconds
from ..files.regular import read_regular
from ..files.schema import MetricsRow
from .sinks import Sinks
from .time_left import Pace

LINE_EVERY_S = 10.0  # seconds between two training lines, without a bar
LEAST_BAR_WIDTH = 80  # columns: in a narrower terminal the numbers beside the bar would be cut
LONG_RUN_S = 300.0  # a longer run prints its expected time
MAX_METRICS_BYTES = 1_000_000_000  # about five million rows


class RunLog:
    """Writes metrics.jsonl and shows progress; a context manager, open while the run trains."""

    def __init__(
        self,
        path: Path,
        pace: Pace,
        metric: Metric,
        console: Console,
        seconds: float,
        check_folder: CheckFolder,
        sinks: Sinks,
        can_be_shorter: bool = False,
    ) -> None:
        """Open the log.

        ``seconds`` is the time that a resumed run took before this process. ``can_be_shorter`` is whether ``--quick``
        would shorten the run; a long run then suggests it.
        """
        self.file = path.open("a", encoding="utf-8")
        self.sinks = sinks
        self.check_folder = check_folder
        self.console = console
        self.pace = pace
        self.meta_steps = pace.work.meta_steps
        self.shows_bar = fits_bar(console)
        self.metric = metric
        self.started = time.perf_counter() - seconds
        self.last_line = -LINE_EVERY_S  # seconds into the run
        self.can_be_shorter = can_be_shorter
        self.told_time = False
        self.bar = Progress(
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", table_column=Column(overflow="ellipsis", no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=len("99:59 left"))),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=console,
            disable=not self.shows_bar,
        )
        self.bar_task = self.bar.add_task(
            "training", total=self.meta_steps, completed=pace.work.step, numbers="first step ...", left=""
        )

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.file.close()

    def record(self, kind: str, step: int, **numbers: Any) -> None:
        """Write one row, and show it. Raises RunFailed if the run's folder is gone."""
        self.check_folder()
        seconds = time.perf_counter() - self.started
        row = nan_to_null({"kind": kind, "step": step, "seconds": round(seconds, 3), **numbers})
        self.file.write(json.dumps(row, allow_nan=False) + "\n")
        self.file.flush()
        self.sinks.write(row)
        if kind == "train":
            self._show_train(step, seconds, numbers)
        elif kind == "skipped":
            self.console.print(f"step {step:>6}  skipped: {numbers['why']}", soft_wrap=True)
        else:
            score = self.metric.write(numbers["score"], numbers["ci95"])
            self.console.print(f"step {step:>6}  validation {self.metric.name} {score}", soft_wrap=True)

    def notify(self, line: str) -> None:
        """Show a message."""
        self.console.print(line, soft_wrap=True)

    def sync(self) -> None:
        """Write the rows to disk."""
        os.fsync(self.file.fileno())

    def _show_train(self, step: int, seconds: float, numbers: dict[str, float]) -> None:
        text = (
            f"query loss {numbers['query_loss']:.3f}  "
            f"{self.metric.name} {self._scores(numbers)}  "
            f"{numbers['tasks_per_second']:.0f} tasks/s"
        )
        left = self.pace.seconds_left()
        if left is not None:
            self._tell_time(left)
        after = "" if step < self.meta_steps else ": the test"
        time_left = "" if left is None else f"{minutes_and_seconds(left)} left{after}"
        self.bar.update(self.bar_task, completed=step, numbers=text, left=time_left)
        due = seconds - self.last_line >= LINE_EVERY_S or step == self.meta_steps
        if due and not self.shows_bar:
            self.last_line = seconds
            line = f"step {step}/{self.meta_steps}  {text}  {time_left}".rstrip()
            self.console.print(line, soft_wrap=True)

    def _tell_time(self, left: float) -> None:
        """If the run will take long, print its time once, as soon as the pace is known."""
        if not self.told_time and left > LONG_RUN_S:
            quick = "; add --quick to `fmaml run` for a short form of it" if self.can_be_shorter else ""
            self.notify(f"this run takes about {round(left / 60)} minutes{quick}")
        self.told_time = True

    def _scores(self, numbers: dict[str, float]) -> str:
        """The metric before and after adaptation, or one number if both are equal (without inner steps)."""
        before, after = (self.metric.write(numbers[key]) for key in ("before", "after"))
        return after if numbers["before"] == numbers["after"] else f"{before} → {after}"


def truncate_metrics(path: Path, step: int, validated: int) -> list[dict[str, Any]]:
    """Drop the rows after a checkpoint, which will be written again, and incomplete lines; return the other rows.

    ``step`` is the checkpoint's step, ``validated`` the last step validated before it.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    kept: list[bytes] = []
    for line in read_regular(path, MAX_METRICS_BYTES).splitlines(keepends=True):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            checked = MetricsRow.checked(row)
            if checked.kind is None or checked.seconds is None:
                continue
            last = validated if row["kind"] == "val" else step
            if row["step"] <= last and line.endswith(b"\n"):
                rows.append(row)
                kept.append(line)
    write_durably(path, b"".join(kept))
    return rows


def progress_bar(
    console: Console, count: ProgressColumn | None = None, clock: Callable[[], float] = time.perf_counter
) -> Progress:
    """A bar with a name, the number done and the time left; hidden if the terminal is too narrow."""
    return Progress(
        TextColumn("{task.description}"),
        count or MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        console=console,
        transient=True,
        disable=not fits_bar(console),
        get_time=clock,
    )


def fits_bar(console: Console) -> bool:
    """Whether the output is a terminal wide enough for a bar with its numbers."""
    return console.is_terminal and console.width >= LEAST_BAR_WIDTH
