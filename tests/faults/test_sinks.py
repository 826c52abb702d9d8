"""What else a run is logged to has its rows once each, whatever interrupted it, and cannot stop it."""

import csv
import errno
import json
import os
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
