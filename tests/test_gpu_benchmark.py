"""`benchmarks/gpu.py` loses nothing that it measured, whatever ends a part, and needs torch and little else."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import children
import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
QUICK = ("--quick", "--device", "cpu")


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("part", ["ceilings", "steps", "training", "omniglot", "large", "resume"])
def test_each_part_comes_to_its_end(part, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", children.run)  # of the script's own processes
    command = [sys.executable, SCRIPT, "--out", tmp_path / "gpu.jsonl", *QUICK, "--parts", part]
    ran = children.run(command, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    *found, end = rows(tmp_path / "gpu.jsonl")
    assert end["case"] == "end"
    assert end["ended"] == "done"
    assert found
    assert not [row for row in found if "why" in row]
    assert found[-1]["case"] in ran.stdout


def test_each_convolution_gives_the_same_meta_gradient(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_parts
    from networks import conv28

    problem = gpu_parts.doubled(conv28(torch.device("cpu"), queries=1, width=4))
    tasks = gpu_parts.doubled(problem.tasks(2))
    right = gpu_parts.gradient(problem, tasks)
    for lowering in gpu_parts.LOWERINGS:
        found = gpu_parts.gradient(gpu_parts.with_conv(problem, lowering), tasks)
        torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


def test_a_part_that_is_killed_keeps_its_rows_and_the_next_one_runs(tmp_path, monkeypatch):
    out = tmp_path / "gpu.jsonl"
    monkeypatch.setattr(subprocess, "run", children.run)  # of the script's own processes
    words = [SCRIPT, "--out", out, *QUICK, "--parts", "steps,omniglot"]
    parent = children.start(partial(children.script, [str(word) for word in words]))
    while not rows(out):
        assert parent.poll() is None
        time.sleep(0.01)
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    assert parent.wait() == 1
    found = rows(out)
    ends = {row["part"]: row["ended"] for row in found if row["case"] == "end"}
    assert ends == {"steps": "ended by signal 9", "omniglot": "done"}
    assert found[0]["part"] == "steps"
    assert "ms" in found[0]


def test_it_takes_five_minutes(monkeypatch):
    """Without --drawings, in which case the paper's Omniglot is left out."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu
    import gpu_parts

    assert gpu.SECONDS.keys() == gpu_parts.PARTS.keys()
    assert sum(gpu.SECONDS.values()) - gpu.SECONDS["omniglot"] <= 300


def test_it_needs_few_packages():
    """Those of a bare image with torch: without what checks settings and draws pictures."""
    code = (
        "import sys; sys.modules |= dict.fromkeys(['pydantic', 'pydantic_core', 'matplotlib']);"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); import gpu_parts"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
