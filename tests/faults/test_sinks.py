"""What else a run is logged to has its rows once each, whatever interrupted it, and cannot stop it."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import PATIENCE, fingerprint, finish, fork, run, uninterrupted, wait
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmaml.training import sinks as sinks_file
from fmaml.training.sinks import SINKS, Sinks

BOTH = "train.log_to=[csv,tensorboard]"
RARELY = "train.save_every=7"


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def check_csv(out: Path) -> None:
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [
        {column: "" if row.get(column) is None else str(row[column]) for column in sinks_file.CSV_COLUMNS}
        for row in logged(out)
    ]
    assert rows == wanted


def check_events(out: Path) -> None:
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    for kind, key in (("train", "query_loss"), ("train", "after"), ("val", "score"), ("val", "ci95")):
        found = [(event.step, pytest.approx(event.value)) for event in events.Scalars(f"{kind}/{key}")]
        assert found == [(row["step"], row[key]) for row in logged(out) if row["kind"] == kind]


def dies(out: Path, step: int, *overrides: str) -> None:
    """A run that is killed after it has logged this step, and saved an earlier one."""

    def work() -> int:
        from fmaml.training.log import RunLog

        record = RunLog.record

        def dying(self, *row, **numbers):
            record(self, *row, **numbers)
            if row[1] >= step:
                os._exit(99)

        RunLog.record = dying
        return run(out, *overrides)

    assert wait(fork(work)) == 99


@pytest.mark.parametrize("step", [1, 13, 20, 37])
def test_after_a_kill_every_row_is_there_once(tmp_path, step):
    out = tmp_path / "out"
    dies(out, step, BOTH, RARELY)
    assert finish(out, BOTH, RARELY) == 0
    check_csv(out)
    check_events(out)
    assert fingerprint(out) == uninterrupted()


def test_what_is_asked_for_later_has_the_rows_of_before(tmp_path):
    out = tmp_path / "out"
    dies(out, 30, RARELY)
    assert not (out / "metrics.csv").exists()
    assert finish(out, BOTH, RARELY) == 0
    check_csv(out)
    check_events(out)


def test_a_baseline_has_its_rows_under_its_name(tmp_path):
    out = tmp_path / "out"
    settings = [BOTH, "train.meta_steps=6", "train.baseline=joint"]
    assert finish(out, *settings) == 0
    assert finish(out, *settings) == 0, "once more, when all is done"
    with (out / "metrics.csv").open(newline="") as file:
        kinds = [(row["kind"], row["step"]) for row in csv.DictReader(file)]
    own = [(row["kind"], str(row["step"])) for row in logged(out)]
    joint = [(f"joint/{row['kind']}", str(row["step"])) for row in logged(out / "joint")]
    assert kinds == own + joint


def test_an_open_tensorboard_drops_what_it_has_read_of_an_earlier_file(tmp_path):
    out = tmp_path / "out"
    dies(out, 30, BOTH, RARELY)
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert len(events.Scalars("train/after")) > 5
    assert finish(out, BOTH, RARELY) == 0
    events.Reload()
    steps = [event.step for event in events.Scalars("train/after")]
    assert steps == [row["step"] for row in logged(out) if row["kind"] == "train"]


def test_a_full_disk_for_one_of_them_is_said_once_and_the_run_goes_on(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"

    def work() -> int:
        def full(self, row, when):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        sinks_file.CsvFile.write = full
        return run(out, BOTH)

    assert wait(fork(work, None, said)) == 0
    assert said.read_text().count("train.log_to: csv: No space left on device; nothing more is logged there") == 1
    check_events(out)
    assert fingerprint(out) == uninterrupted()


SMALL_DISKS = """
import os, subprocess, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import harness
from fmaml.training.sinks import Sinks

begin = Sinks.__init__

def on_small_disks(self, folder, *rest):
    for name in ("tensorboard", "wandb"):
        (folder / name).mkdir()
        given = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder / name)]
        subprocess.run(given, check=True)
    begin(self, folder, *rest)

Sinks.__init__ = on_small_disks
assert harness.run(Path(sys.argv[1]), "train.log_to=[csv,tensorboard,wandb]", "train.log_every=1") == 0
"""


@pytest.mark.parametrize("size", ["4k", "40k"])
def test_w_and_b_and_tensorboard_on_disks_that_are_really_full(tmp_path, size):
    """W&B itself says nothing. 40k is full after some rows of W&B; all rows of TensorBoard fit in."""
    pytest.importorskip("wandb")
    probe = ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs -o size=8k none '{tmp_path}'"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user mount a file system of his own")
    here, out = Path(__file__).parent, tmp_path / "out"
    paths = [str(here), str(here.parent), str(Path(sinks_file.__file__).parents[2])]
    script = SMALL_DISKS.replace("{paths!r}", repr(paths)).replace("{size}", size)
    ended = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", script, str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "WANDB_MODE": "offline"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    full = {"4k": ["tensorboard", "wandb"], "40k": ["wandb"]}[size]
    said = [line for line in ended.stderr.splitlines() if line.startswith("fmaml: train.log_to")]
    lines = [f"fmaml: train.log_to: {name}: No space left on device; nothing more is logged there" for name in full]
    assert sorted(line.partition(", and")[0] for line in said) == lines
    with (out / "metrics.csv").open(newline="") as file:
        training = [row["step"] for row in csv.DictReader(file) if row["kind"] == "train"]
    assert training == [str(row["step"]) for row in logged(out) if row["kind"] == "train"]
    assert (out / "report.html").exists()


def test_one_that_cannot_begin_or_end_stops_nothing(tmp_path):
    out, said = tmp_path / "out", tmp_path / "said"

    class Unending:
        def __init__(self, folder, config): ...

        def write(self, row, when): ...

        def close(self):
            raise ValueError

    class Broken(Unending):
        def __init__(self, folder, config):
            raise RuntimeError("no\nlonger")

    def work() -> int:
        SINKS["tensorboard"], SINKS["wandb"] = Broken, Unending
        return run(out, "train.log_to=[tensorboard,wandb,csv]")

    assert wait(fork(work, None, said)) == 0
    text = said.read_text()
    assert "fmaml: train.log_to: tensorboard: no; nothing more is logged there, and the run continues\n" in text
    assert "fmaml: train.log_to: wandb: ValueError; nothing" in said.read_text()
    check_csv(out)
    assert fingerprint(out) == uninterrupted()


def test_w_and_b_is_not_waited_for_without_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sinks_file, "FINISH_LIMIT_S", 0.1)

    released, finished = threading.Event(), []

    class Hanging(sinks_file.WeightsAndBiases):
        def __init__(self, folder, config):
            self.folder, self.run = folder, self

        def finish(self):
            released.wait(PATIENCE)
            finished.append(True)

    monkeypatch.setitem(SINKS, "wandb", Hanging)
    with Sinks(tmp_path, {}, ["wandb"]):
        pass
    assert not finished
    released.set()
    assert f"`wandb sync` sends {tmp_path / 'wandb'}" in capsys.readouterr().err


def test_checkpoints_do_not_know_of_it(tmp_path):
    """So that it can be asked for, or not, when a run is resumed."""
    out = tmp_path / "out"
    dies(out, 20, BOTH)
    assert finish(out, "train.log_to=[]") == 0
    assert fingerprint(out) == uninterrupted()
