"""The progress of a meta-test with the time left: a bar, or without one a line every ten seconds."""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import TextColumn

from ..files.plain_text import minutes_and_seconds
from .log import LINE_EVERY_S, fits_bar, progress_bar


class MetaTestProgress:
    """Counts tasks and estimates the time left; a context manager that shows the bar.

    The bar counts forward passes over all protocols, so that the estimate covers the coming ones.
    """

    def __init__(
        self, console: Console, tasks: int, passes: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console, self.clock = console, clock
        self.total, self.done, self.last_line = tasks, 0, clock()
        self.bar = progress_bar(console, TextColumn("{task.fields[tasks]}"), clock)
        self.bar_task = self.bar.add_task("meta-testing", total=passes, tasks=f"0/{tasks}")

    def __enter__(self) -> "MetaTestProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def skip(self, tasks: int, passes: float) -> None:
        """Count tasks that were tested before, with their forward passes."""
        self.done += tasks
        self.bar.update(self.bar_task, total=(self.bar.tasks[0].total or 0) - passes)

    def advance(self, tasks: int, passes: float) -> None:
        """Count tasks that were just tested, with their forward passes."""
        self.done += tasks
        self.bar.update(self.bar_task, advance=passes, tasks=f"{self.done}/{self.total}")
        now, left = self.clock(), self.seconds_left()
        if left and now - self.last_line >= LINE_EVERY_S and not fits_bar(self.console):
            self.last_line = now
            line = f"meta-testing {self.done}/{self.total} tasks  {minutes_and_seconds(left)} left"
            self.console.print(line, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """The estimated time left, or None if it is not known yet."""
        return self.bar.tasks[0].time_remaining
