"""A signal ends a run after the step at hand, with nothing lost; one folder has one run."""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from children import processor_seconds, start
from harness import (
    PATIENCE,
    SAVES,
    SAVING,
    SHORT,
    STEP,
    Page,
    fingerprint,
    finish,
    fork,
    has_ended,
    litter,
    run,
    steps,
    uninterrupted,
    wait,
    wait_for,
)

import fmaml.training.run_experiment
from fmaml.checkpoints.run_folder import run_folder
from fmaml.checkpoints.run_lock import locked, refuse_if_held
from fmaml.cli.main import main
from fmaml.errors import Error, Stopped, exit_code
from fmaml.meta_testing import scores as meta_test
from fmaml.processes import signals
from fmaml.training import nan_guard

FINISH = fmaml.training.run_experiment.report_results  # the real one: children of this folder have none
LONG = 10  # a cell of the shared page: 1 in a long step, 2 once it may end
CHUNKS = 11  # another: how many chunks of tasks were evaluated
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 128 + signal.SIGUSR1, signal.SIGHUP: 129}


def begun(out: Path, page: Page, until: int, said: Path) -> int:
    """A run's process id, once it has come to a step."""
    child = fork(lambda: run(out), page, said)
    wait_for(lambda: page[STEP] >= until, said)
    return child


def stop(child: int, number: int) -> int:
    """Send a signal to a child and return its exit code; from the signal on it may use 5 s of a processor."""
    limit = processor_seconds(child) + 5
    os.kill(child, number)
    return wait(child, limit)


@pytest.mark.parametrize("trials", [2, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_saves_and_exits_with_its_code(tmp_path, number, trials):
    draw = random.Random(number)
    for trial in range(trials):
        out, page, said = tmp_path / str(trial), Page(), tmp_path / "said"
        child = begun(out, page, draw.randrange(1, 30), said)
        time.sleep(draw.uniform(0, 0.02))
        assert stop(child, number) == CODES[number], said.read_text()
        assert f"`fmaml resume {out}` continues" in said.read_text()
        assert steps(out)[0] >= page[STEP]
        assert not litter(out)
        assert finish(out) == 0
        assert fingerprint(out) == uninterrupted()


def test_a_signal_during_an_evaluation_does_not_wait_for_its_end(tmp_path):
    out, page, said = tmp_path / "out", Page(), tmp_path / "said"
    long = "train.validate_tasks=100000"  # minutes

    def evaluating() -> int:
        evaluate = meta_test.evaluate

        def counted(*args, **more):
            page[CHUNKS] += 1
            return evaluate(*args, **more)

        meta_test.evaluate = counted
        return run(out, long, "train.meta_steps=10")

    child = fork(evaluating, page, said)
    wait_for(lambda: page[CHUNKS] > 3, said)
    assert stop(child, signal.SIGTERM) == 143, said.read_text()
    assert steps(out)[0] == 10, "the step before the evaluation was not saved"


@pytest.mark.parametrize("trials", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_a_second_signal_inside_a_save_and_a_storm_do_no_harm(tmp_path, trials):
    for trial in range(trials):
        out, page, said = tmp_path / str(trial), Page(), tmp_path / "said"
        child = begun(out, page, 5 * trial + 1, said)
        saves = page[SAVES]
        os.kill(child, signal.SIGINT)
        wait_for(lambda page=page, saves=saves: page[SAVING] or page[SAVES] > saves, said)
        for _ in range(20 if trial % 2 else 1):
            os.kill(child, signal.SIGINT if trial % 2 == 0 else signal.SIGTERM)
        assert wait(child) in (130, -signal.SIGTERM)  # the latter if it had saved and was on its way out
        assert finish(out) == 0
        assert fingerprint(out) == uninterrupted()


def test_a_step_that_is_longer_than_five_seconds_is_finished_and_more_of_the_same_signal_do_no_harm(tmp_path):
    """What is promised is five seconds from the end of the step at hand; one run for each signal, all at once."""

    def work(out: Path, page: Page) -> int:
        step = nan_guard.NanGuard.__call__

        def slow(self, state, tasks, skipped):
            if state.step == 4:
                page[LONG] = 1
                while page[LONG] == 1:  # of short waits, as a signal ends one
                    time.sleep(0.01)
            return step(self, state, tasks, skipped)

        nan_guard.NanGuard.__call__ = slow
        return run(out)

    runs = []
    for number in CODES:
        out, said, page = tmp_path / f"{number}", tmp_path / f"{number}.said", Page()
        runs.append((number, fork(lambda out=out, page=page: work(out, page), page, said), out, said, page))
    for _, _, _, said, page in runs:
        wait_for(lambda page=page: page[LONG] == 1, said)
    for _ in range(30):
        for number, child, *_ in runs:
            os.kill(child, number)
        time.sleep(0.2)  # so that the step takes six seconds
    for number, child, out, said, page in runs:
        assert not has_ended(child), said.read_text()
        limit = processor_seconds(child) + 5
        page[LONG] = 2
        assert wait(child, limit) == CODES[number], said.read_text()
        assert steps(out)[0] == 5
        assert finish(out) == 0
        assert fingerprint(out) == uninterrupted()


@pytest.mark.parametrize("number", CODES)
def test_a_signal_during_the_meta_test_loses_no_step_and_the_next_run_reports(tmp_path, number):
    out, said = tmp_path / "out", tmp_path / "said"

    def work(tasks: str = "eval.tasks=10000000") -> int:
        fmaml.training.run_experiment.report_results = FINISH
        return run(out, SHORT, tasks)

    child = fork(work, None, said)
    wait_for(lambda: said.exists() and "meta-testing" in said.read_text())
    assert stop(child, number) == CODES[number], said.read_text()
    assert steps(out)[0] == 10
    assert wait(fork(lambda: work("eval.tasks=2"), None, said)) == 0, said.read_text()
    assert (out / "results.json").exists()


def test_handlers_only_note_and_are_put_back():
    before = {number: signal.getsignal(number) for number in CODES}
    with signals.deferred_signals():
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)  # no exception here
        with pytest.raises(Stopped) as stop:
            signals.raise_if_stopped()
        assert exit_code(stop.value) == CODES[signal.SIGUSR1], "the first signal counts"
        signals.raise_if_stopped()  # and only once
    assert {number: signal.getsignal(number) for number in CODES} == before


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with signals.deferred_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_run_under_nohup_goes_on(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.deferred_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            signals.raise_if_stopped()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.pictures
@pytest.mark.parametrize("errors_too", [False, True])
def test_a_run_without_a_reader_goes_on_to_its_report(tmp_path, errors_too):
    """As `fmaml run ... | head -1`, and as in a terminal that is gone."""
    small = ["train.meta_steps=40", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false"]
    command = ["run", "sinusoid", *small, "eval.tasks=2", "--out", str(tmp_path / "out")]
    read, write = os.pipe()
    with open(os.devnull, "wb") as nowhere:
        process = start(lambda: os.close(read) or main(command), write, write if errors_too else nowhere.fileno())
    os.close(write)
    with open(read, encoding="utf-8") as said:
        assert said.readline()
    assert process.wait(PATIENCE) == 0
    assert {"results.json", "best.safetensors", "by_inner_step.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


# The folder's lock


@pytest.mark.parametrize("trials", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_of_two_runs_in_one_folder_one_runs_and_the_other_names_it(tmp_path, trials):
    draw = random.Random(0)
    for trial in range(trials):
        out, said = tmp_path / str(trial), [tmp_path / f"{trial}.{i}" for i in range(2)]
        page = Page()
        first = fork(lambda out=out, page=page: run(out, "train.meta_steps=100000", resume=False), page, said[0])
        time.sleep(draw.uniform(0, 0.2))
        second = fork(lambda out=out: run(out, "train.meta_steps=100000", resume=True), None, said[1])
        wait_for(lambda first=first, second=second: has_ended(first) or has_ended(second))
        loser, winner = (first, second) if has_ended(first) else (second, first)
        assert wait(loser, processor_limit=1) == 2
        text = said[loser == second].read_text()
        assert f"in use by process {winner} on {socket.gethostname()}" in text, text
        os.kill(winner, signal.SIGKILL)
        wait(winner)
        refuse_if_held(out)  # the kernel has let go at once


def test_a_run_that_has_written_files_already_is_named_all_the_same(tmp_path):
    with locked(tmp_path):
        (tmp_path / "config.yaml").touch()
        with pytest.raises(Error, match=f"in use by process {os.getpid()}"), run_folder(str(tmp_path), "x", False):
            pytest.fail("it ran")


def test_runs_that_start_in_one_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        folders = {stack.enter_context(run_folder(None, "sweep", False)) for _ in range(5)}
    assert len(folders) == 5


def test_the_lock_is_asked_for_before_torch_is_imported(tmp_path, monkeypatch, capsys):
    import sys
    from types import SimpleNamespace

    from fmaml.cli.main import main

    monkeypatch.setitem(
        sys.modules, "fmaml.training.run_experiment", SimpleNamespace(run=lambda *_, **__: pytest.fail("it ran"))
    )
    with locked(tmp_path):
        assert main(["run", "sinusoid", "--out", str(tmp_path)]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err


def test_a_lock_is_held_for_its_block_and_no_longer(tmp_path):
    with locked(tmp_path), pytest.raises(Error, match="in use by process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
