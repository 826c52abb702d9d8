"""The command that runs every algorithm makes its table, and runs nothing twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import children

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "algorithms.py"
SMALL = ["data.name=glyphs", "data.rotate=[]", "model.width=4", "train.meta_steps=2", "train.meta_batch=2"]
SMALL += ["train.validate_tasks=2", "eval.tasks=3", "eval.steps=2"]


def command(folder: Path, *words: str) -> tuple[int, str]:
    words = (*words, *SMALL, "--out", str(folder / "runs"))
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    ran = children.run([sys.executable, SCRIPT, *words], capture_output=True, env=environment)
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, ran.stdout


def test_one_table_and_one_picture_and_nothing_is_run_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", children.run)  # of the script's own processes
    extra = ["--json", str(tmp_path / "out.json"), "--picture", str(tmp_path / "out.png")]
    code, before = command(tmp_path, "maml", "--seeds", "0", "1", "--report")
    assert (code, "`maml`" in before) == (1, False)
    code, first = command(tmp_path, "maml", "protonet", "--jobs", "2", *extra)
    assert code == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert {run["algorithm"] for run in content["runs"]} == {"maml", "protonet"}
    assert content["costs"]["maml"]["time"] == content["costs"]["maml"]["memory"] == 1
    assert "commit" in content["environment"]
    assert all(run["config"]["model"]["width"] == 4 and "commit" in run["environment"] for run in content["runs"])
    assert (tmp_path / "out.png").stat().st_size > 10_000
    rows = {line.split("`")[1]: line.split("|") for line in first.splitlines() if line.startswith("| `")}
    assert [cell.strip() == "" for cell in rows["protonet"][2:8]] == [False, True, True, True, True, True]
    assert [cell.strip() == "" for cell in rows["maml"][2:8]] == [False, False, False, True, True, True]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/results.json")}
    code, again = command(tmp_path, "maml", "protonet", "--report")
    assert (code, again) == (0, first)
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/results.json")}


def test_a_name_that_is_none_is_said_at_once(tmp_path):
    ran = children.run([sys.executable, SCRIPT, "mamml"], cwd=tmp_path, capture_output=True)
    assert ran.returncode == 1
    assert "no such algorithm: mamml; there are" in ran.stderr
