"""Every benchmark runs, and keeps its samples together with what they must be read with."""

import json
import subprocess
import sys
from pathlib import Path

import children
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = ["roofline", "peers", "vmap_vs_loop", "sampling", "memory", "startup"]


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    return children.run([sys.executable, BENCHMARKS / f"{name}.py", *arguments], capture_output=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of all scripts at their smallest, each in a process of its own."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", children.run)  # of the scripts' own processes
        ran = script("run_all", "--quick", "--device", "cpu", "--out", folder)
    tables = "\n".join(path.read_text() for path in folder.glob("*.txt"))
    assert ran.returncode == 0, ran.stdout + ran.stderr + tables
    return folder


def test_none_is_forgotten(results):
    assert {path.stem for path in results.glob("*.json")} == {f"{name}_cpu" for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_samples_and_environment(results, name):
    result = json.loads((results / f"{name}_cpu.json").read_text())
    assert {"hardware", "threads", "versions", "commit", "command", "load_average"} <= result["environment"].keys()
    assert result["environment"]["quick"]
    measured = [row["seconds"] for row in result["rows"] if "seconds" in row]
    assert measured
    assert all(sample > 0 for seconds in measured for samples in seconds.values() for sample in samples)
    assert all("seconds" in row or row["left_out"] for row in result["rows"])


def test_peers_that_are_timed_agree(results):
    rows = json.loads((results / "peers_cpu.json").read_text())["rows"]
    timed = {row["way"]: row["relative_error"] for row in rows if "seconds" in row}
    assert {"fmaml, vmapped", "fmaml, looped", "autograd loop", "torch.func, gradient outside"} <= timed.keys()
    assert max(timed.values()) < 1e-9


def test_operations_are_those_that_torch_counts(results):
    (row,) = json.loads((results / "roofline_cpu.json").read_text())["rows"]
    assert row["flop"] == row["flop_counted_by_torch"]


def test_counted_memory_grows_with_the_inner_steps_that_are_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from counted import peak_bytes
    from networks import mlp

    problem = mlp(torch.device("cpu"))
    kept, again = (
        [peak_bytes(problem.step(problem.maml(steps, remat=remat), problem.tasks(2))) for steps in (1, 5, 9)]
        for remat in (False, True)
    )
    assert kept[2] - kept[1] == kept[1] - kept[0] > again[2] - again[1]


def test_picture(results, tmp_path):
    ran = script("pictures", "--results", results, "--out", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("speed", "peers"))


def test_no_step_has_grown(monkeypatch):
    """Of operations, arithmetic and memory none is 5 % more than in the tracked file, which `--write` renews."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import operations

    file = json.loads(operations.FILE.read_text())
    tracked = file["steps"]
    if not torch.__version__.startswith(file["torch"]):
        pytest.skip(f"counted with torch {file['torch']}, which CI has; another one has other operations")
    assert operations.grown(operations.measured(), tracked) == []
    more = {name: {what: int(1.06 * value) for what, value in counts.items()} for name, counts in tracked.items()}
    assert len(operations.grown(more, tracked)) == 3 * len(tracked)
    assert len(operations.grown({"new": {"operations": 1}}, tracked)) == 1
