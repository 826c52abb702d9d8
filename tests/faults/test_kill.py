"""Killed at any instant, a run goes on to the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import (
    PATIENCE,
    PRUNES,
    SAVES,
    SAVING,
    SHORT,
    SMALL,
    STEP,
    STEPS,
    Page,
    fingerprint,
    finish,
    fork,
    has_ended,
    litter,
    run,
    shimmed,
    steps,
    uninterrupted,
    wait,
    wait_for,
)

import fmaml


def stop_in_a_save(child: int, page: Page, draw: random.Random) -> None:
    """Halt the child at a random moment of a save, unless it has ended."""
    while not has_ended(child):
        wait_for(lambda: page[SAVING] or has_ended(child))
        time.sleep(draw.uniform(0, 0.002))
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if page[SAVING]:
            break
        os.kill(child, signal.SIGCONT)


def kill_at_random(folder: Path, kills: int, draw: random.Random) -> dict[str, int]:
    """Runs in new folders, each killed and gone on with until it is done; how often a kill fell where."""
    counts = {"kills": 0, "inside a save": 0, "before the first": 0, "litter": 0, "runs": 0}
    while counts["kills"] < kills:
        out, done = folder / str(counts["runs"]), False
        while not done:
            page = Page()
            child = fork(lambda out=out, page=page: run(out), page, folder / "said")
            turn = counts["kills"] % 20
            time.sleep(draw.uniform(0, 0.4 if turn else 0.004))  # one in twenty before there is anything to go on from
            if turn % 5 > 1:  # three in five at a random moment of a save, which a fast disk makes rare
                stop_in_a_save(child, page, draw)
            os.kill(child, signal.SIGKILL)
            code = wait(child)
            done = code == 0
            if not done:
                assert code == -signal.SIGKILL, (folder / "said").read_text()[-2000:]
                counts["kills"] += 1
                counts["inside a save"] += page[SAVING]
                counts["before the first"] += not (page[SAVES] or steps(out) if out.exists() else page[SAVES])
                counts["litter"] += bool(litter(out))
                lost = page[STEP] - (steps(out) or [0])[0]
                assert lost <= 1, f"{lost} steps lost"
        assert fingerprint(out) == uninterrupted()
        assert not litter(out)
        shutil.rmtree(out)
        counts["runs"] += 1
    return counts


@pytest.mark.parametrize("kills", [20, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 5000))])
def test_kills_at_random_moments(tmp_path, kills, record_property):
    counts = kill_at_random(tmp_path, kills, random.Random(kills))
    record_property("counts", counts)
    print(counts)
    assert counts["inside a save"] >= 0.3 * counts["kills"], counts
    assert counts["before the first"] >= 1, counts
    assert counts["litter"] >= (kills >= 200), counts  # of every kill in five; none of twenty is no fault


POINTS = [f"{when} {name}" for name in ("open", "write", "fsync", "close", "replace") for when in ("before", "after")]


def kill_at(out: Path, point: str, hit: int) -> None:
    """In a child: die at the n-th time that ``point`` is reached; "half write" leaves half of the bytes."""
    left = hit

    def act(reached: str, args: tuple) -> None:
        nonlocal left
        if reached == ("before write" if point == "half write" else point):
            left -= 1
            if left == 0:
                if point == "half write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

    with shimmed(act):
        run(out, SHORT)


@pytest.mark.parametrize("hits", [(1, 5), pytest.param((2, 3, 9), marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", [*POINTS, "half write"])
def test_a_kill_at_every_operation_on_files(tmp_path, point, hits):
    for hit in hits:
        out = tmp_path / str(hit)
        assert wait(fork(lambda out=out, hit=hit: kill_at(out, point, hit), None, tmp_path / "said")) == -signal.SIGKILL
        assert finish(out, SHORT) == 0
        assert fingerprint(out) == uninterrupted(SHORT)
        assert not litter(out)


@pytest.mark.parametrize("hit", [1, 2, 3, 4, 5])
def test_a_kill_before_and_after_a_checkpoint_is_pruned(tmp_path, hit):
    for after in (False, True):
        page, out = Page(), tmp_path / str(after)

        def work(out=out, page=page, after=after):
            unlink = Path.unlink

            def dying(self: Path, missing_ok: bool = False) -> None:
                if page[PRUNES] == hit - 1 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                unlink(self, missing_ok)
                if page[PRUNES] == hit:
                    os.kill(os.getpid(), signal.SIGKILL)

            Path.unlink = dying
            return run(out, SHORT)

        assert wait(fork(work, page)) == -signal.SIGKILL
        assert len(steps(out)) >= 2
        assert finish(out, SHORT) == 0
        assert fingerprint(out) == uninterrupted(SHORT)


def test_a_row_that_was_torn_comes_again_once(tmp_path):
    out, page = tmp_path / "out", Page()
    child = fork(lambda: run(out), page)
    wait_for(lambda: page[STEP] >= 20)
    os.kill(child, signal.SIGKILL)
    wait(child)
    with open(out / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "step": 23, "query')
    assert finish(out) == 0
    assert fingerprint(out) == uninterrupted()


def test_a_run_that_is_done_stays_as_it_is(tmp_path):
    out = tmp_path / "out"
    assert [finish(out), finish(out)] == [0, 0]
    assert fingerprint(out) == uninterrupted()
    assert steps(out) == [STEPS, STEPS - 1]


@pytest.mark.parametrize("kills", [1, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_of_the_command_itself(tmp_path, kills):
    """`fmaml run ... --resume`, again and again, in processes that share nothing, not even the order of their sets."""
    out, draw = tmp_path / "out", random.Random(kills)
    command = [
        sys.executable,
        "-m",
        "fmaml",
        "run",
        "sinusoid",
        *SMALL,
        "--device",
        "cpu",
        "--out",
        str(out),
        "--resume",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(fmaml.__file__).parent.parent)}

    def start() -> subprocess.Popen:
        hashes = {"PYTHONHASHSEED": str(draw.randrange(1, 1000))}
        return subprocess.Popen(
            command,
            env=environment | hashes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    for _ in range(kills):
        before = steps(out)[:1]
        child = start()
        while steps(out)[:1] == before and child.poll() is None:  # until it has come further
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    last = start()
    assert last.wait(PATIENCE) == 0, last.communicate()[1]
    last.communicate()
    assert fingerprint(out) == uninterrupted()
    assert (out / "results.json").exists()
