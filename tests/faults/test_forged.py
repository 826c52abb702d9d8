"""Files that are read back hold values of other types, or without limits: each is named in a line, none is taken."""

import contextlib
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fmaml.checkpoints.checkpoint_format import decode_checkpoint, encode_checkpoint
from fmaml.cli.main import main
from fmaml.models.find_model import find_model
from fmaml.models.model_file import read_model, write_model
from fmaml.report import read_run
from fmaml.report.read_run import metrics_of, scores_of_tasks

SETTINGS = [
    "train.meta_steps=4",
    "train.validate_every=2",
    "train.validate_tasks=2",
    "train.baseline=false",
    "eval.tasks=2",
]
WRONG: list[Any] = ["x", None, [1], {"a": 1}, True, -1, 2.5, 10**30, 10**400]  # for a whole number


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "good"
    assert main(["run", "sinusoid", *SETTINGS, "--out", str(folder)]) == 0
    return folder


FORGED = [
    *(("step", value) for value in WRONG),
    *(("validated", value) for value in WRONG),
    *(("skipped", value) for value in WRONG),
    *(("without_best", value) for value in WRONG),
    *(("seconds", value) for value in WRONG if value != 2.5),
    *(("best", value) for value in ["x", [1], True, float("inf"), float("nan"), 10**400]),
    *(
        ("step_form", value)
        for value in [5, None, {"no": 1}, {"compiled": "x"}, {"chunk_size": 0}, {"chunk_size": "4"}]
    ),
    *(("config", value) for value in [5, None, {}, {"train": None}]),
    *((key, value) for key in ("data", "versions") for value in [5, None, {"train": 5}, [1]]),
    *(("machine", value) for value in [5, None, {"device": {"a": 1}}]),
    *(("algorithm", value) for value in [5, None]),
    *(("seed", value) for value in ["0", None, []]),
]


def test_a_forged_fact_of_a_checkpoint_is_one_line_and_not_taken(finished, tmp_path, capsys, monkeypatch):
    newest = sorted((finished / "checkpoints").iterdir())[-1]
    tensors, facts = decode_checkpoint(newest.read_bytes())
    shutil.copytree(finished, folder := tmp_path / "forged")
    for path in (*(folder / "checkpoints").iterdir(), folder / "results.json"):
        path.unlink()
    monkeypatch.setattr(json, "dumps", lambda value, allow_nan=True, dumps=json.dumps, **rest: dumps(value, **rest))
    for key, value in FORGED:
        (folder / "checkpoints" / newest.name).write_bytes(encode_checkpoint(tensors, {**facts, key: value}))
        assert main(["resume", str(folder)]) == 1, (key, value)
        first, second = capsys.readouterr().err.splitlines()
        assert f"{newest.name}: damaged (" in first, first
        assert key in first, first
        assert len(first) < 500
        assert "checkpoints are damaged" in second, second
    assert len(FORGED) == 76


SCORE = {"mean": 0.5, "ci95": 0.1}
FORGED_RESULTS: list[Any] = [
    *(5, None, [], "x", {}, {"results": 5}, {"results": {"a": 5}}, {"results": {"a": [5]}}, {"results": {"a": [{}]}}),
    *({"results": {"a": [{**SCORE, key: value}]}} for key in SCORE for value in ["x", [1], {}, True, 10**400, 1e305]),
    *({"results": {"a": [SCORE]}, "style": style} for style in [5, None, "", ".9999999999f", "{0.__class__}", ".2%\n"]),
    *({"results": {"a": [SCORE]}, key: value} for key in ("metric", "more_is_better") for value in [5, [], {"a": 1}]),
    *({"results": {"a": [SCORE]}, "chance": value} for value in ["x", [1], 10**400]),
    {"results": {str(number): [SCORE] for number in range(1001)}},
]


def test_a_forged_results_json_is_one_line_of_the_list_and_the_others_are_listed(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "good")
    for number, content in enumerate(FORGED_RESULTS):
        shutil.copytree(finished, folder := tmp_path / f"forged{number}")
        (folder / "results.json").write_text(json.dumps(content))
    assert main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(FORGED_RESULTS) == 38
    assert [line for line in lines if "finished" in line and "/good " in line]
    assert sum("results.json: " in line for line in lines) == len(FORGED_RESULTS)


def test_other_damage_to_a_run_does_not_end_the_list(finished, tmp_path, capsys):
    rows = ['{"step": 1e999}', '{"step": "٣"}', "[" * 10**5, '{"step": ' + "9" * 10**4 + "}", "\0", '{"step": true}']
    for number, row in enumerate(rows):
        shutil.copytree(finished, folder := tmp_path / f"row{number}")
        (folder / "metrics.jsonl").write_text(row)
    shutil.copytree(finished, future := tmp_path / "future")
    (future / "metrics.jsonl").touch()
    with contextlib.suppress(OSError):  # on a file system of shorter times
        os.utime(future / "metrics.jsonl", (0, 10**11))
    (tmp_path / "row0" / "config.yaml").write_text("- a\n")
    assert main(["runs", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


RUN = {"folder": "a", "settings": {}, "config": {}, "state": "finished", "exit_code": None, "message": ""}
FORGED_SWEEPS: list[Any] = [
    *(5, [], {}, {"name": "x", "device": "cpu"}, {"name": "x", "device": "cpu", "runs": 5}),
    *({"name": value, "device": "cpu", "runs": []} for value in [5, None, ["x"]]),
    *(
        {"name": "x", "device": "cpu", "runs": [{**RUN, key: value}]}
        for key, values in {
            "folder": ["../x", "/etc", "..", ".", "", "a\\b", "a\0", 5],
            "settings": [5, None],
            "config": ["x", None],
            "exit_code": ["x", 1.5, True],
            "message": [5, None, "x" * 10_001],
        }.items()
        for value in values
    ),
]


@pytest.mark.parametrize("content", FORGED_SWEEPS)
def test_a_forged_sweep_is_one_line(tmp_path, capsys, content):
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert main(["resume", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "sweep.json: damaged" in line
    assert sorted(path.name for path in tmp_path.iterdir()) in (["sweep.json"], [".lock", "sweep.json"])


SYMBOLS = {"targets": "symbols", "inputs": [8]}
FORGED_MODELS = {
    "a million layers": ("model", {"name": "transformer", "layers": 10**6, "width": 8, "heads": 1}, SYMBOLS),
    "a layer beyond the limit": ("model", {"name": "transformer", "layers": 1001, "width": 8, "heads": 1}, SYMBOLS),
    "a thousand layers": ("model", {"name": "transformer", "layers": 1000, "width": 8, "heads": 1}, SYMBOLS),
    "a million convolutions": ("model", {"name": "conv1d", "layers": 10**12}, {"inputs": [1, 8]}),
    "300,000 widths": ("model", {"name": "mlp", "hidden": [1] * 300_000}, {}),
    "widths of a billion": ("model", {"name": "mlp", "hidden": [10**9, 10**9]}, {}),
    "a million rates": ("algorithm", {"name": "lslr", "inner_lr": 0.1, "steps": 10**9}, {}),
    "a mask that fits nothing": ("algorithm", {"name": "mamlpp", "inner_lr": 0.1, "steps": 10**6}, {}),
    "a million steps": ("", {}, {"steps": 10**6}),
    "a million inputs": ("", {}, {"inputs": [10**6]}),
    "inputs of 10^15": ("", {}, {"inputs": [10**5] * 3}),
}


@pytest.mark.parametrize("forged", FORGED_MODELS)
def test_a_forged_model_is_one_line_in_a_few_seconds(tmp_path, capsys, forged):
    section, settings, facts = FORGED_MODELS[forged]
    tensors, metadata = read_model(find_model("sinusoid"))
    metadata = {key: value for key, value in (metadata or {}).items() if key not in ("digest", "format")} | facts
    if section:
        metadata["config"][section] = settings
    write_model(tmp_path / "model.safetensors", tensors, metadata)
    begun = time.process_time()
    assert main(["test", str(tmp_path / "model.safetensors")]) == 2
    assert time.process_time() - begun < 5
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "model.safetensors") in line
    assert len(line) < 800


def test_rows_with_other_types_are_left_out(tmp_path):
    rows: list[Any] = [{"step": 1, "kind": "train", "before": 1.5}, {"step": 2, "kind": "val", "score": None}]
    wrong = [{"step": value} for value in WRONG] + [{"step": 3, "score": value} for value in ["x", [1], True, 10**400]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*rows, *wrong, 5])))
    assert metrics_of(tmp_path) == rows
    good = {"column": "a", "first": 0, "end": 2, "scores": [[0.1, 0.5], [0.2, None]]}
    wrong = [{**good, "first": value} for value in WRONG] + [
        {**good, "scores": value} for value in [5, [[]], [[1]], [["x"]]]
    ]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, [{"seed": 0}, good, *wrong])))
    facts, columns = scores_of_tasks(tmp_path)
    assert facts == {"seed": 0}
    torch.testing.assert_close(
        torch.tensor([*columns["a"].values()]), torch.tensor([0.5, float("nan")]), equal_nan=True
    )


def test_many_rows_are_thinned_evenly_and_each_kind_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(read_run, "MOST_ROWS", 100)
    rows = [{"step": i, "kind": "val" if i % 2 else "train"} for i in range(5_000)] + [{"step": 5_000, "kind": "odd"}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = metrics_of(tmp_path)
    for kind in ("val", "train"):
        steps = [row["step"] for row in found if row["kind"] == kind]
        assert 50 <= len(steps) <= 100
        assert {b - a for a, b in itertools.pairwise(steps)} == {64}
        assert steps[0] == (kind == "val")
    assert [row["step"] for row in found] == sorted(row["step"] for row in found)


def test_resume_leaves_out_forged_rows_and_a_forged_environment(finished, tmp_path, capsys):
    """One value at a time; the run is finished again, with its results."""
    row = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    rows = [{**row, "seconds": value} for value in ("x", [[1]], 10**400, None, True)]
    lines = [*map(json.dumps, [*rows, {**row, "step": [1]}, {**row, "kind": 5}]), "[" * 10**5, '{"a":' * 10**5]
    shutil.copytree(finished, folder := tmp_path / "run")
    good = (finished / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(good + "\n".join(lines) + "\n")
    (folder / "environment.json").write_text("[" * 10**5)
    (folder / "results.json").unlink()
    assert main(["resume", str(folder)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert (folder / "metrics.jsonl").read_text() == good
    assert json.loads((folder / "environment.json").read_text())["device"] == "cpu"
