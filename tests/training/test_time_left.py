"""The time that is left, by a clock that the test moves."""

import io

import pytest
from rich.console import Console

from fmaml.config.build import call_by_name
from fmaml.config.load import load_config
from fmaml.config.settings import EvalSettings
from fmaml.losses import inductive, transductive
from fmaml.meta_testing.scores import COST_ALONE, forward_passes, passes_of_test
from fmaml.training.testing_progress import MetaTestProgress
from fmaml.training.time_left import STEP_COST, Pace, Work, count_due, work_of

TRAINING = Work(step=0, meta_steps=1000, validations=0, validation=0.0, testing=0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A run in which nothing happens but that time goes by."""

    def __init__(self, work: Work) -> None:
        self.clock = Clock()
        self.pace = Pace(work, self.clock)

    def go(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            self.clock.now += seconds
            self.pace.stepped()

    def validate(self, seconds: float) -> None:
        with self.pace.validation():
            self.clock.now += seconds

    def left(self) -> float:
        found = self.pace.seconds_left()
        assert found is not None
        return found


def test_nothing_is_said_before_something_is_known():
    run = Run(TRAINING)
    assert run.pace.seconds_left() is None
    for seconds in (30.0, 2.0):  # the first steps of a process say nothing of the others
        run.go(1, seconds)
        assert run.pace.seconds_left() is None
    run.go(1, 2.0)
    assert run.left() == pytest.approx(997 * 2.0)


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
    assert run.left() == pytest.approx((1000 - run.pace.steps) * 0.4 * factor, rel=0.1)


def test_a_resumed_run_goes_by_this_machine_alone():
    run = Run(TRAINING._replace(step=900))
    run.go(10, 0.2)
    assert run.left() == pytest.approx(90 * 0.2)


def test_the_rate_is_that_since_the_last_line_without_validations():
    run = Run(TRAINING)
    run.go(1, 4.0)
    assert run.pace.steps_a_second() == pytest.approx(1 / 4)
    run.go(5, 0.2)
    run.validate(100.0)
    run.go(5, 0.2)
    assert run.pace.steps_a_second() == pytest.approx(5)


def test_validations_and_the_test_are_in_it():
    run = Run(Work(step=0, meta_steps=100, validations=4, validation=8.0, testing=5.0))
    run.go(30, 1.0)
    assert run.left() == pytest.approx(70 + (4 + 5) * 8.0 * 1.0), "none was measured yet"
    run.validate(6.0)
    assert run.left() == pytest.approx(70 + (3 + 5) * 6)
    for steps in (30, 30):
        run.go(steps, 1.0)
        run.validate(6.0)
    run.go(10, 1.0)
    assert run.left() == pytest.approx((1 + 5) * 6)
    run.validate(6.0)
    assert run.left() == pytest.approx(5 * 6)


@pytest.mark.parametrize("after", [0, 29, 30, 31, 90, 99, 100])
def test_validations_are_counted_as_they_are_due(after):
    due = [step for step in range(after + 1, 101) if step % 30 == 0 or step == 100]
    assert count_due(100, 30, after) == len(due)


def test_the_work_of_an_experiment():
    config = load_config("omniglot", ["data.name=glyphs", "train.validate_tasks=100", "eval.tasks=300"])
    source = call_by_name("data", config["data"], seed=0, device="cpu")
    steps = config["eval"]["steps"]
    together, alone = (forward_passes(source, protocol, steps) for protocol in (transductive, inductive))
    assert together == 3 * steps * 5 + (steps + 1) * 25
    assert alone == pytest.approx(3 * steps * 5 + (steps + 1) * 25 * 6 * COST_ALONE)
    assert passes_of_test(source, EvalSettings(**config["eval"])) == pytest.approx(300 * (together + alone))
    work = work_of(config, source, 0)
    assert work.testing == pytest.approx(3 * (1 + alone / together))
    scores = config["train"]["meta_batch"] * forward_passes(source, transductive, config["algorithm"]["steps"])
    assert work.validation == pytest.approx(100 * together / (STEP_COST * scores))
    total = config["train"]["meta_steps"]
    assert work_of(config, source, total - 1)[:3] == (total - 1, total, 1)
    config["eval"]["inductive"] = False
    assert work_of(config, source, 0).testing == pytest.approx(3)
    config["train"]["baseline"] = True
    assert work_of(config, source, 0).testing == pytest.approx(6)


def lines_and_times(costs: list[float], seconds: list[float], *, skipped: int = 0, part: int = 10):
    """The lines of a test of 100 tasks by each protocol, which cost and take so much each, and its estimates.

    Each estimate, made at the end of a part, stands after the time that was left then.
    """
    clock, said = Clock(), io.StringIO()
    left: list[tuple[float, float | None]] = []
    with MetaTestProgress(Console(file=said, width=200), 100 * len(costs), 100 * sum(costs), clock) as progress:
        for cost, taken in zip(costs, seconds, strict=True):
            progress.skip(skipped, skipped * cost)
            for _ in range(skipped, 100, part):
                clock.now += taken * part
                progress.advance(part, part * cost)
                left.append((clock.now, progress.seconds_left()))
    return said.getvalue().splitlines(), [(clock.now - when, guess) for when, guess in left]


def test_a_test_says_every_ten_seconds_how_long_it_takes():
    lines, left = lines_and_times([2.0, 6.0], [0.2, 0.6])
    assert left[0][1] is None
    assert all(guess == pytest.approx(truth, abs=1) for truth, guess in left[1:])
    assert lines[0] == "meta-testing 50/200 tasks  1:10 left"
    assert len(lines) == 6, lines


def test_a_test_that_goes_on_counts_only_what_it_does():
    lines, left = lines_and_times([2.0, 6.0], [0.2, 0.6], skipped=50)
    assert all(guess is None or guess <= truth + 50 * 0.6 + 1 for truth, guess in left)
    assert lines[0].startswith("meta-testing 100/200 tasks")


def test_a_cost_that_was_judged_wrongly_is_corrected_within_half_a_minute():
    _, left = lines_and_times([1.0, 1.0], [0.2, 0.9])
    assert all(guess == pytest.approx(truth, abs=1) for truth, guess in left[14:])


def test_what_is_done_already_takes_no_time():
    assert lines_and_times([1.0], [1.0], skipped=100) == ([], [])
