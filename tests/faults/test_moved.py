"""A run whose folder is moved or removed stops, and never writes into the folder that another run has in its place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SHORT, config, fingerprint, finish, fork, uninterrupted, wait

import fmaml.checkpoints.checkpoint_store
import fmaml.training.finish
import fmaml.training.run_experiment
from fmaml.training.log import RunLog
from fmaml.training.resume_and_train import ModelFiles

REPORT = fmaml.training.run_experiment.report_results  # the real one: children have none
LATE = 10  # the run in its place keeps the file of this save, and deletes older ones
MOMENTS = ("save", "log", "finish", "report", "results")
OTHER = "seed=1"  # of the run that begins in the place of the first


def run_with(act: Callable[[], object], out: Path, moment: str) -> int:
    """In a child: a run during which ``act`` is called once, just before it does what ``moment`` says."""
    module, name = {
        "save": (fmaml.checkpoints.checkpoint_store.CheckpointStore, "save"),
        "write": (fmaml.checkpoints.checkpoint_store, "write_durably"),
        "log": (RunLog, "record"),
        "finish": (ModelFiles, "write_last"),
        "report": (fmaml.training.finish, "score_all"),
        "results": (fmaml.training.finish, "logged_results"),
    }[moment]
    real, calls = getattr(module, name), []

    def acting(*args, **more):
        calls.append(name)
        if len(calls) == {"save": LATE, "write": 4, "log": 4}.get(moment, 1):
            act()
        return real(*args, **more)

    setattr(module, name, acting)
    if moment in ("report", "results"):
        fmaml.training.run_experiment.report_results = REPORT
    rarely = ["train.save_every=1000"] if moment == "log" else []
    return fmaml.training.run_experiment.run(config(SHORT, *rarely), device="cpu", out=str(out))


def stopped_line(said: Path, out: Path) -> str:
    (line,) = (line for line in said.read_text().splitlines() if line.startswith(f"{out}: "))
    return line


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("moment", "replaced"),
    [("write", False), *((moment, replaced) for moment in MOMENTS for replaced in (False, True))],
)
def test_a_run_whose_folder_is_moved_stops_and_goes_on_from_the_new_place(tmp_path, moment, replaced):
    out, place, said = tmp_path / "out", tmp_path / "elsewhere" / "place", tmp_path / "said"
    place.parent.mkdir()
    other: dict[Path, bytes] = {}

    def move() -> None:
        out.rename(place)
        if replaced:
            shutil.copytree(tmp_path / "another", out)

    if replaced:
        assert finish(tmp_path / "another", SHORT, OTHER) == 0
        other = files(tmp_path / "another")
    assert wait(fork(lambda: run_with(move, out, moment), None, said)) == 1, said.read_text()
    line = stopped_line(said, out)
    assert "moved or removed" in line
    if moment == "log":
        rows = [json.loads(row) for row in (place / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 3, 6], "it did not stop before the row of step 9"
    assert "`fmaml resume NEWPLACE` continues" in line
    if replaced:
        assert [content for _, content in files(out).items()] == list(other.values()), "it wrote into the other run"
    else:
        assert not out.exists(), "it made the folder anew"
    assert finish(place, SHORT) == 0
    assert fingerprint(place) == uninterrupted(SHORT)


@pytest.mark.parametrize("moment", ["save", "write", "log", "finish", "report", "results"])
def test_a_run_whose_folder_is_removed_stops_and_leaves_nothing(tmp_path, moment):
    out, said = tmp_path / "out", tmp_path / "said"
    assert wait(fork(lambda: run_with(lambda: shutil.rmtree(out), out, moment), None, said)) == 1, said.read_text()
    assert "moved or removed" in stopped_line(said, out)
    assert not out.exists()


def test_a_new_run_in_the_place_of_a_removed_one_has_it_to_itself(tmp_path):
    """The first one goes on for a while: its next write is what tells it."""
    out, said = tmp_path / "out", tmp_path / "said"

    def restart() -> None:
        shutil.rmtree(out)
        assert finish(out, SHORT, OTHER) == 0

    assert wait(fork(lambda: run_with(restart, out, "save"), None, said)) == 1, said.read_text()
    assert "moved or removed" in stopped_line(said, out)
    assert fingerprint(out) == uninterrupted(SHORT, OTHER)


def test_a_folder_that_is_reached_by_a_link_may_be_moved_with_the_link(tmp_path):
    """What counts is which folder the path leads to."""
    out, disk, said = tmp_path / "out", tmp_path / "disk", tmp_path / "said"
    disk.mkdir()
    out.symlink_to(disk)

    def move() -> None:
        disk.rename(tmp_path / "disk2")
        out.unlink()
        out.symlink_to(tmp_path / "disk2")

    assert wait(fork(lambda: run_with(move, out, "save"), None, said)) == 0, said.read_text()
    assert fingerprint(out) == uninterrupted(SHORT)
