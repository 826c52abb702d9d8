"""Estimate the time left of a run: its steps at the pace of the last minute, its validations, and the test."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..config.settings import Config, EvalSettings, TrainSettings
from ..data.source import Source
from ..meta_testing.scores import forward_passes, passes_of_test

WINDOW_S = 60.0
MARK_EVERY_S = 1.0
FIRST_STEPS = 2  # steps not measured: the start of the process, and compiling
STEP_COST = 2.0  # a meta-step relative to an evaluation of its tasks, per forward pass: measured 1.6 to 2.3


class Work(NamedTuple):
    """The work of a run from ``step`` on."""

    step: int
    meta_steps: int
    validations: int
    validation: float  # in meta-steps, by forward passes; used until a validation has been measured
    testing: float  # in validations


def work_of(config: Config, source: Source, step: int) -> Work:
    """The work of a training from this step on; the test includes the baseline's."""
    train, test = TrainSettings(**config["train"]), EvalSettings(**config["eval"])
    together = source.settings[0]
    validation = train.validate_tasks * forward_passes(source, together, test.steps)
    scores = train.meta_batch * forward_passes(source, together, config["algorithm"].get("steps", 1))
    testing = passes_of_test(source, test) * (2 if train.baseline else 1)
    due = count_due(train.meta_steps, train.validate_every, step)
    return Work(step, train.meta_steps, due, validation / (STEP_COST * scores), testing / validation)


def count_due(total: int, every: int, after: int) -> int:
    """The number of steps after this one that are a multiple of ``every``, or the last."""
    return 0 if after >= total else -(-total // every) - after // every


class Pace:
    """Measures the steps and the validations of this process, and estimates the time left."""

    def __init__(self, work: Work, clock: Callable[[], float] = time.perf_counter) -> None:
        self.work, self.clock = work, clock
        self.steps, self.validations = 0, 0
        self.a_validation: float | None = None  # seconds of the last one
        self.validating = 0.0  # seconds of all validations, not counted as steps
        self.last = self.logged = self._now()
        self.marks = deque([self.last])  # one per second of the last minute

    def _now(self) -> tuple[float, int]:
        return self.clock() - self.validating, self.steps

    def stepped(self) -> None:
        """Record the end of a step."""
        self.steps += 1
        self.last = self._now()
        if self.steps <= FIRST_STEPS:
            self.marks.clear()
        if not self.marks or self.last[0] - self.marks[-1][0] >= MARK_EVERY_S:
            self.marks.append(self.last)
        while len(self.marks) > 2 and self.marks[0][0] < self.last[0] - WINDOW_S:
            self.marks.popleft()

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Measure a validation in the block; its time does not count as part of a step."""
        begin = self.clock()
        yield
        self.a_validation = self.clock() - begin
        self.validating += self.a_validation
        self.validations += 1

    def steps_a_second(self) -> float:
        """The mean number of steps a second since the last call, or since the start."""
        (begin, before), self.logged = self.logged, self._now()
        return (self.steps - before) / (self.logged[0] - begin)

    def seconds_left(self) -> float | None:
        """The estimate for training, validations and the test together, or None if it is not known yet."""
        (begin, before), (end, after) = self.marks[0], self.last
        if after == before:
            return None
        a_step = (end - begin) / (after - before)
        a_validation = self.work.validation * a_step if self.a_validation is None else self.a_validation
        validations = max(0, self.work.validations - self.validations) + self.work.testing
        return (self.work.meta_steps - self.work.step - self.steps) * a_step + validations * a_validation
