"""A run's numbers: one JSON object a line in metrics.jsonl, and a progress bar (plain lines without a terminal)."""

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ..atomic_files import write_durably
from ..data.source import Metric

LINE_EVERY_S = 10.0  # without a terminal, at most one training line in this many seconds


class RunLog:
    """Use as a context manager around training; `record` is all that training calls."""

    def __init__(self, path: Path, meta_steps: int, metric: Metric, console: Console, seconds: float = 0) -> None:
        """``seconds`` were spent before this process took over."""
        self.file = path.open("a", encoding="utf-8")
        self.console = console
        self.meta_steps = meta_steps
        self.metric = metric
        self.begun = time.perf_counter() - seconds
        self.lined = -LINE_EVERY_S
        self.bar = Progress(
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", table_column=Column(overflow="ellipsis", no_wrap=True)),
            TimeRemainingColumn(
                compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=5)
            ),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            speed_estimate_period=300,
            console=console,
            disable=not console.is_terminal,
        )
        self.job = self.bar.add_task("training", total=meta_steps, numbers="first step ...")

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.file.close()

    def record(self, kind: str, step: int, **numbers: Any) -> None:
        """Keep one row, and show it."""
        seconds = time.perf_counter() - self.begun
        row = {"kind": kind, "step": step, "seconds": round(seconds, 3), **numbers}
        self.file.write(json.dumps(without_nan(row), allow_nan=False) + "\n")
        self.file.flush()
        if kind == "train":
            self._show_train(step, seconds, numbers)
        elif kind == "skipped":
            self.console.print(f"step {step:>6}  skipped: {numbers['why']}", highlight=False, soft_wrap=True)
        else:
            self.console.print(
                f"step {step:>6}  validation {self.metric.name} {self.metric.write(numbers['score'], numbers['ci95'])}",
                highlight=False,
            )

    def say(self, line: str) -> None:
        """Tell something that is no number."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def sync(self) -> None:
        """Make the rows last."""
        os.fsync(self.file.fileno())

    def _show_train(self, step: int, seconds: float, numbers: dict[str, float]) -> None:
        text = (
            f"query loss {numbers['query_loss']:.3f}  "
            f"{self.metric.name} {self.metric.write(numbers['before'])} → {self.metric.write(numbers['after'])}  "
            f"{numbers['tasks_per_second']:.0f} tasks/s"
        )
        self.bar.update(self.job, completed=step, numbers=text)
        if not self.console.is_terminal and (seconds - self.lined >= LINE_EVERY_S or step == self.meta_steps):
            self.lined = seconds
            left = seconds / step * (self.meta_steps - step)
            self.console.print(
                f"step {step}/{self.meta_steps}  {text}  {clock(left)} left", highlight=False, soft_wrap=True
            )


def truncate_metrics(path: Path, step: int, validated: int) -> None:
    """Keep the rows up to a checkpoint, without a truncated last line; the later ones will be written again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            row = json.loads(line)
            if row["step"] <= (validated if row["kind"] == "val" else step) and line.endswith(b"\n"):
                kept.append(line)
    write_durably(path, b"".join(kept))


def without_nan(tree: Any) -> Any:
    """The same with null for NaN and infinity, which JSON does not have: a network may diverge, and a log says so."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
