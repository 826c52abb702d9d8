"""The progress of a meta-test: a bar, or where there is none a line every ten seconds, with the time that is left."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from ..files.plain_text import minutes_and_seconds
from ..training.log import LINE_EVERY_S, fits_bar, progress_bar, time_left_column
from ..training.time_left import Clock


class Column(NamedTuple):
    """Tasks that are tested in one way."""

    tasks: int
    cost: float  # of a task, beside those of other columns


class MetaTestProgress:
    """Counts the tasks that are done, column by column; a context manager, open while there is a bar."""

    def __init__(self, console: Console, columns: Sequence[Column], clock: Clock = time.perf_counter) -> None:
        self.console = console
        self.columns = columns
        self.clock = clock
        self.total = sum(column.tasks for column in columns)
        self.done = 0  # tasks
        self.column = 0
        self.measured = 0  # tasks of this column that were timed
        self.seconds = 0.0  # that those took
        self.a_unit: float | None = None  # seconds of a task with a cost of 1, in the last column that was timed
        self.last = self.last_line = clock()
        self.bar = progress_bar(console, time_left_column(clock))
        self.bar_task = self.bar.add_task("meta-testing", total=self.total, deadline=None)

    def __enter__(self) -> "MetaTestProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def skip(self, tasks: int) -> None:
        """So many tasks of the current column were tested before."""
        self.last = self.clock()
        self._count(tasks)

    def advance(self, tasks: int) -> None:
        """So many more tasks of the current column are done."""
        now = self.clock()
        self.measured += tasks
        self.seconds += now - self.last
        self.last = now
        self.a_unit = self.seconds / self.measured / self.columns[self.column].cost
        self._count(tasks)
        self._show(now)

    def _count(self, tasks: int) -> None:
        self.done += tasks
        ends = sum(column.tasks for column in self.columns[: self.column + 1])
        if self.done == ends and self.column + 1 < len(self.columns):
            self.column, self.measured, self.seconds = self.column + 1, 0, 0.0

    def seconds_left(self) -> float | None:
        """None if no task was timed yet."""
        if self.a_unit is None:
            return None
        ends, left = 0, 0.0
        for column in self.columns:
            ends += column.tasks
            left += min(column.tasks, max(0, ends - self.done)) * column.cost
        return left * self.a_unit

    def _show(self, now: float) -> None:
        left = self.seconds_left() or 0.0
        self.bar.update(self.bar_task, completed=self.done, deadline=now + left)
        if now - self.last_line >= LINE_EVERY_S and not fits_bar(self.console) and self.done < self.total:
            self.last_line = now
            line = f"meta-testing {self.done}/{self.total} tasks  {minutes_and_seconds(left)} left"
            self.console.print(line, highlight=False, soft_wrap=True)
