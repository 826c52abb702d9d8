"""A sweep whose processes are killed or stopped at any time goes on to the same sweep.json; one bad run stops none."""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from harness import SHORT, SMALL, fork, steps, wait, wait_for

import fmaml.report.results
import fmaml.training.run_experiment
from fmaml.cli.main import main
from fmaml.processes.signals import STOP_SIGNALS
from fmaml.sweep import workers
from fmaml.sweep.state import SWEEP_FILE
from fmaml.sweep.workers import stop_with_parent

FINISH = fmaml.training.run_experiment.report_results  # the real one: children of this folder have none
RATES = "optimizer.lr=0.01,0.02"
_held: list[int] = []  # the ends of pipes by which a sweep's processes see that it has ended


class Forked:
    """A run's process that is forked, which costs milliseconds, in the place of one that is started."""

    def __init__(self, folder: Path, device: str, output: IO[bytes], threads: int | None) -> None:
        read, write = os.pipe()
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 99
            try:
                let_go(*_held, write)
                for number in STOP_SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                os.dup2(read, 0)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, encoding="utf-8")
                stop_with_parent()
                code = main(["resume", str(folder), "--device", device])
            finally:
                os._exit(code)
        os.close(read)
        _held.append(write)

    def poll(self) -> int | None:
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def let_go(*handles: int) -> None:
    """Close what a started process would not have: these handles, and the lock of the sweep."""
    open_files = {int(path.name): os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    for handle in {*handles, *(number for number, file in open_files.items() if file.endswith("/.lock"))}:
        os.close(handle)


def sweep(out: Path, *more: str) -> int:
    """The sweep as the command line starts it, in a forked process."""
    fmaml.training.run_experiment.report_results = FINISH
    fmaml.report.results.write_pictures = lambda *_: None
    workers.start_process = Forked
    command = [
        "run",
        "sinusoid",
        *SMALL,
        SHORT,
        RATES,
        "--seeds",
        "0,1",
        "--out",
        str(out),
        "--resume",
        "--device",
        "cpu",
    ]
    return main([*command, *more])


def children(out: Path) -> list[int]:
    """The living processes that have locked a run of the sweep. A look takes no lock, which would be in their way."""
    found = []
    for lock in out.glob("seed*/.lock"):
        words = lock.read_bytes().split()  # process N on HOST
        with contextlib.suppress(FileNotFoundError, IndexError):
            state = Path(f"/proc/{int(words[1])}/stat").read_text().rpartition(")")[2].split()[0]
            found += [int(words[1])] if state not in "ZX" else []
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> bytes:
    out = tmp_path_factory.mktemp("sweep")
    assert wait(fork(lambda: sweep(out / "out"), None, out / "said")) == 0, (out / "said").read_text()
    return (out / "out" / SWEEP_FILE).read_bytes()


@contextlib.contextmanager
def begun(out: Path, said: Path, *more: str) -> Iterator[int]:
    """A sweep that has begun a run."""
    parent = fork(lambda: sweep(out, *more), None, said)
    wait_for(lambda: children(out), said)
    yield parent


def test_every_run_is_an_ordinary_run_and_the_summary_is_over_seeds(undisturbed):
    saved = json.loads(undisturbed)
    assert [run["folder"] for run in saved["runs"]] == [
        "seed=0,lr=0.01",
        "seed=0,lr=0.02",
        "seed=1,lr=0.01",
        "seed=1,lr=0.02",
    ]
    assert {run["state"] for run in saved["runs"]} == {"finished"}
    for entry, lr in zip(saved["summary"], (0.01, 0.02), strict=True):
        assert entry["settings"] == {"optimizer.lr": lr}
        assert entry["seeds"] == [0, 1]
        a, b = (run["results"]["maml"][-1]["mean"] for run in saved["runs"] if run["settings"]["optimizer.lr"] == lr)
        last = entry["results"]["maml"][-1]
        assert last["mean"] == pytest.approx((a + b) / 2)
        assert last["sd"] == pytest.approx(abs(a - b) / 2**0.5)
        assert last["t95"] == pytest.approx(12.7062047 * abs(a - b) / 2)
    best = [entry for entry in saved["summary"] if entry["best"]]
    assert [entry["validation"]["mean"] for entry in best] == [min(e["validation"]["mean"] for e in saved["summary"])]


@pytest.mark.parametrize("all_kills", [3, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("jobs", [1, 2])
def test_kills_of_the_sweep_and_of_its_runs_lose_nothing(tmp_path, jobs, all_kills, undisturbed):
    draw, said, kills, code = random.Random(jobs), tmp_path / "said", 0, 1
    out = tmp_path / "out"
    while kills < all_kills:
        parent = fork(lambda: sweep(out, "--jobs", str(jobs)), None, said)
        time.sleep(draw.uniform(0, 0.5))
        running = children(out) if out.exists() else []
        if kills % 2 and running:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(running[-1], signal.SIGKILL)
            assert wait(parent) in (0, 1), said.read_text()
        else:
            os.kill(parent, signal.SIGKILL)
            assert wait(parent) in (-signal.SIGKILL, 0)
        kills += 1
    for _ in range(2):
        code = code and wait(fork(lambda: sweep(out, "--jobs", str(jobs)), None, said))
    assert code == 0, said.read_text()
    assert (out / SWEEP_FILE).read_bytes() == undisturbed
    assert not list(out.glob(".*.tmp"))


def test_no_run_outlives_a_sweep_that_is_killed(tmp_path):
    out = tmp_path / "out"
    with begun(out, tmp_path / "said", "train.meta_steps=100000", "--jobs", "2") as parent:
        os.kill(parent, signal.SIGKILL)
    wait(parent)
    wait_for(lambda: not children(out))
    assert all(step < 100_000 for run in out.glob("seed*") for step in steps(run)), "a run went on to its end"


def test_a_signal_stops_all_and_resume_goes_on(tmp_path, undisturbed):
    out, said = tmp_path / "out", tmp_path / "said"
    for number in (signal.SIGINT, signal.SIGTERM):
        with begun(out, said, "--jobs", "2") as parent:
            time.sleep(0.1)
            os.kill(parent, number)
        code = wait(parent)
        assert code in (128 + number, 0), said.read_text()
        if code:
            assert said.read_text().endswith(f"stopped; `fmaml resume {out}` continues\n")
            assert not children(out)

    def resumed() -> int:
        fmaml.training.run_experiment.report_results = FINISH
        fmaml.report.results.write_pictures = lambda *_: None
        workers.start_process = Forked
        return main(["resume", str(out)])

    assert wait(fork(resumed, None, said)) == 0, said.read_text()
    assert (out / SWEEP_FILE).read_bytes() == undisturbed


def test_a_run_that_fails_is_told_and_stops_no_other(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"
    code = wait(fork(lambda: sweep(out, "algorithm.inner_lr=1.0e+30,0.01", "optimizer.lr=0.01"), None, said))
    assert code == 1, said.read_text()
    saved = json.loads((out / SWEEP_FILE).read_text())
    assert [run["state"] for run in saved["runs"]] == ["failed", "finished"] * 2
    assert [run["exit_code"] for run in saved["runs"]] == [1, 0] * 2
    assert "the query loss is infinity" in saved["runs"][0]["message"]
    assert [entry["best"] for entry in saved["summary"]] == [False, True]
    text = said.read_text()
    assert "0 of 2 seeds, 2 failed" in text
    assert f"seed=0,inner_lr=1e+30: failed with exit code 1: {saved['runs'][0]['message']}" in text
    assert f"2 failed; `fmaml resume {out}` continues them" in text


def test_one_sweep_a_folder(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"
    with begun(out, said) as parent:
        assert wait(fork(lambda: sweep(out), None, tmp_path / "second")) == 2
        assert "in use by process" in (tmp_path / "second").read_text()
    assert wait(parent) == 0, said.read_text()


def test_more_seeds_are_added_and_what_is_done_is_kept(tmp_path, undisturbed):
    out, said = tmp_path / "out", tmp_path / "said"
    assert wait(fork(lambda: sweep(out, "optimizer.lr=0.01", "--seeds", "1"), None, said)) == 0, said.read_text()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/results.json")}
    assert len(stamps) == 1
    assert wait(fork(lambda: sweep(out, "optimizer.lr=0.01"), None, said)) == 0, said.read_text()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    both, saved = json.loads(undisturbed), json.loads((out / SWEEP_FILE).read_text())
    assert [run["results"] for run in saved["runs"]] == [run["results"] for run in both["runs"][::2]]
    assert wait(fork(lambda: sweep(out, "optimizer.lr=0.02"), None, said)) == 2
    assert "optimizer.lr: started with 0.01, given 0.02" in said.read_text()


def test_results_that_are_gone_are_made_again(tmp_path, undisturbed):
    out, said = tmp_path / "out", tmp_path / "said"
    assert wait(fork(lambda: sweep(out), None, said)) == 0, said.read_text()
    next(out.glob("*/results.json")).unlink()
    assert wait(fork(lambda: sweep(out), None, said)) == 0, said.read_text()
    assert (out / SWEEP_FILE).read_bytes() == undisturbed
    (out / SWEEP_FILE).write_text("{")
    assert wait(fork(lambda: sweep(out), None, said)) == 2
    assert f"{out / SWEEP_FILE}: damaged" in said.read_text()
