"""What a run says while it trains."""

import io

import pytest
import torch
from rich.console import Console

from fmaml.data.sources.sinusoid import sinusoid
from fmaml.training.log import RunLog
from fmaml.training.sinks import Sinks
from fmaml.training.time_left import Pace, Work


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def said(tmp_path, seconds_a_step: float, can_be_shorter: bool) -> list[str]:
    """The lines of the first 60 of 1,000 steps, of which every 20th is logged."""
    out, clock = io.StringIO(), Clock()
    pace = Pace(Work(0, 1000, 0, 0.0, 0.0), clock)
    metric = sinusoid(seed=0, device=torch.device("cpu")).metric
    console = Console(file=out, width=200)
    sinks = Sinks(tmp_path, {}, ())
    with RunLog(tmp_path / "m.jsonl", pace, metric, console, 0.0, lambda: None, sinks, can_be_shorter) as log:
        for step in range(1, 61):
            clock.now += seconds_a_step
            pace.stepped()
            if step == 1 or step % 20 == 0:
                log.record("train", step, query_loss=1.0, before=2.0, after=1.0, tasks_per_second=3.0)
    return [line for line in out.getvalue().splitlines() if "minutes" in line]


@pytest.mark.parametrize(
    ("can_be_shorter", "line"),
    [
        (True, "this run takes about 20 minutes; add --quick to `fmaml run` for a short form of it"),
        (False, "this run takes about 20 minutes"),
    ],
)
def test_a_long_run_says_so_once(tmp_path, can_be_shorter, line):
    assert said(tmp_path, 1.2, can_be_shorter) == [line]


def test_a_run_of_less_than_five_minutes_does_not(tmp_path):
    assert said(tmp_path, 0.3, True) == []


def test_the_last_step_names_the_test_as_the_rest(tmp_path):
    """Steps take a second each, and the test as long as twenty validations of half a step each."""
    out, clock = io.StringIO(), Clock()
    pace = Pace(Work(0, 12, 0, 0.5, 20.0), clock)
    metric = sinusoid(seed=0, device=torch.device("cpu")).metric
    sinks = Sinks(tmp_path, {}, ())
    console = Console(file=out, width=200)
    with RunLog(tmp_path / "m.jsonl", pace, metric, console, 0.0, lambda: None, sinks) as log:
        for step in range(1, 13):
            clock.now += 1.0
            pace.stepped()
            if step in (8, 12):
                log.last_line = -100.0  # so that the line is due
                log.record("train", step, query_loss=1.0, before=2.0, after=1.0, tasks_per_second=3.0)
    ends = [line.rpartition("  ")[2] for line in out.getvalue().splitlines()]
    assert ends == ["0:14 left", "0:10 left: the test"]
