"""The time that is left, by a clock that the test moves."""

import io

import pytest
from rich.console import Console

from fmaml.config.build import call_by_name
from fmaml.config.load import load_config
from fmaml.losses import inductive, transductive
from fmaml.training.testing_progress import Column, MetaTestProgress
from fmaml.training.time_left import COST_ALONE, Pace, Plan, forward_passes, plan_of, validations

TRAINING = Plan(meta_steps=1000, validate_every=10_000, validation=0.0, testing=0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A run in which nothing happens but that time goes by."""

    def __init__(self, plan: Plan, step: int = 0) -> None:
        self.clock = Clock()
        self.step = step
        self.pace = Pace(plan, step, self.clock)

    def go(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            self.step += 1
            self.clock.now += seconds
            self.pace.stepped(self.step)

    def spend(self, what, seconds: float) -> None:
        with self.pace.timed(what):
            self.clock.now += seconds

    def left(self) -> float:
        found = self.pace.seconds_left()
        assert found is not None
        return found


def test_nothing_is_said_before_something_is_known():
    run = Run(TRAINING)
    assert run.pace.seconds_left() is None
    run.go(1, 30.0)
    assert run.pace.seconds_left() is None


def test_of_two_steps_the_shorter_is_believed():
    run = Run(TRAINING)
    run.go(1, 2.0)
    run.go(1, 40.0)
    assert run.left() == pytest.approx(998 * 2.0)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 1.0, 7.0])
def test_a_constant_pace(seconds):
    run = Run(TRAINING)
    run.go(60, seconds)
    assert run.left() == pytest.approx(940 * seconds)


def test_starting_and_compiling_are_not_the_pace():
    run = Run(TRAINING)
    run.go(1, 5.0)
    run.go(1, 30.0)
    run.go(20, 0.1)
    assert run.left() == pytest.approx(978 * 0.1)


def test_a_pause_is_not_the_pace():
    run = Run(TRAINING)
    run.go(100, 0.5)
    run.go(1, 600.0)
    run.go(4, 0.5)
    assert run.left() == pytest.approx(895 * 0.5)


def test_steps_that_vary_count_by_their_mean():
    """As logged steps do, which cost more, or steps in which memory is collected."""
    run = Run(TRAINING)
    for _ in range(30):
        run.go(19, 0.01)
        run.go(1, 0.2)
    assert run.left() == pytest.approx(400 * 0.39 / 20, rel=0.05)


@pytest.mark.parametrize("factor", [0.2, 2.0, 5.0])
def test_another_pace_is_believed_within_a_minute(factor):
    run = Run(TRAINING)
    run.go(300, 0.4)
    run.go(round(60 / (0.4 * factor)), 0.4 * factor)
    assert run.left() == pytest.approx((1000 - run.step) * 0.4 * factor, rel=0.1)


def test_a_resumed_run_goes_by_this_machine_alone():
    run = Run(TRAINING, step=900)
    run.go(10, 0.2)
    assert run.left() == pytest.approx(90 * 0.2)


def test_validations_and_the_test_are_in_it():
    run = Run(Plan(meta_steps=100, validate_every=30, validation=8.0, testing=5.0))
    run.go(5, 1.0)
    assert run.left() == pytest.approx(95), "nothing is known of a validation yet"
    run.spend("scores", 0.9)  # the first time is longer
    run.spend("scores", 0.25)
    assert run.left() == pytest.approx(95 + (4 + 5) * 8 * 0.25)
    run.go(25, 1.0)
    run.spend("validation", 6.0)
    assert run.left() == pytest.approx(70 + (3 + 5) * 6, rel=0.05)
    for steps in (30, 30):
        run.go(steps, 1.0)
        run.spend("validation", 6.0)
    run.go(10, 1.0)
    assert run.left() == pytest.approx((1 + 5) * 6)
    run.spend("validation", 6.0)
    assert run.left() == pytest.approx(5 * 6)


@pytest.mark.parametrize("after", [0, 29, 30, 31, 90, 99, 100])
def test_validations_are_counted_as_they_are_due(after):
    due = [step for step in range(after + 1, 101) if step % 30 == 0 or step == 100]
    assert validations(Plan(100, 30, 0.0, 0.0), after) == len(due)


def test_the_plan_of_an_experiment():
    config = load_config("omniglot", ["data.name=glyphs", "train.validate_tasks=100", "eval.tasks=300"])
    source = call_by_name("data", config["data"], seed=0, device="cpu")
    steps = config["eval"]["steps"]
    together, alone = (forward_passes(source, protocol, steps) for protocol in (transductive, inductive))
    assert together == 3 * steps * 5 + (steps + 1) * 25
    assert alone == pytest.approx(3 * steps * 5 + (steps + 1) * 25 * 6 * COST_ALONE)
    plan = plan_of(config, source)
    assert plan.testing == pytest.approx(3 * (1 + alone / together))
    without = load_config(
        "omniglot", ["data.name=glyphs", "train.validate_tasks=100", "eval.tasks=300", "eval.inductive=false"]
    )
    assert plan_of(without, source).testing == pytest.approx(3)
    config["train"]["baseline"] = True
    assert plan_of(config, source).testing == pytest.approx(2 * plan.testing)


def lines_and_times(columns: list[Column], seconds: list[float], *, skipped: int = 0, part: int = 10):
    """The lines that a test prints whose tasks take so long in each column, and at each part what it said is left."""
    clock, said = Clock(), io.StringIO()
    left: list[tuple[float, float | None]] = []
    with MetaTestProgress(Console(file=said, width=200), columns, clock) as progress:
        for column, taken in zip(columns, seconds, strict=True):
            progress.skip(skipped)
            for _ in range(skipped, column.tasks, part):
                clock.now += taken * part
                progress.advance(part)
                left.append((clock.now, progress.seconds_left()))
    return said.getvalue().splitlines(), [(clock.now - when, guess) for when, guess in left]


def test_a_test_says_every_ten_seconds_how_long_it_takes():
    lines, left = lines_and_times([Column(100, 2.0), Column(100, 6.0)], [0.2, 0.6])
    assert all(guess == pytest.approx(truth) for truth, guess in left)
    assert lines[0] == "meta-testing 50/200 tasks  1:10 left"
    assert len(lines) == 6, lines


def test_a_test_that_goes_on_counts_only_what_it_does():
    lines, left = lines_and_times([Column(100, 2.0), Column(100, 6.0)], [0.2, 0.6], skipped=50)
    assert all(guess is not None and guess <= truth + 50 * 0.6 + 1e-6 for truth, guess in left)
    assert lines[0].startswith("meta-testing 100/200 tasks")


def test_a_cost_that_was_judged_wrongly_is_corrected_once_it_is_measured():
    _, left = lines_and_times([Column(100, 1.0), Column(100, 1.0)], [0.2, 0.9])
    assert all(guess == pytest.approx(truth) for truth, guess in left[10:])


def test_what_is_done_already_takes_no_time():
    assert lines_and_times([Column(10, 1.0)], [1.0], skipped=10) == ([], [])
