"""1, 2, 3 and 4 processes: the same theta to rounding, the same scores bit for bit, one voice."""

import json
import re
from pathlib import Path

import pytest
import torch
from problems import relative
from processes.torchrun import HERE, ROOT, finish, start, start_anew

import fmaml
from fmaml import distributed
from fmaml.cli.main import main

SMALL = ["train.meta_steps=10", "train.validate_every=5", "train.validate_tasks=16", "eval.tasks=20", "eval.steps=2"]
RUN = ["-m", "fmaml", "run", "sinusoid", *SMALL, "train.compile=false", "train.baseline=false", "--device", "cpu"]


def results_of(processes: int, folder: Path):
    path = folder / f"{processes}.pt"
    print(finish(start(processes, str(HERE / "same_theta.py"), str(path))))
    return torch.load(path)


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    return results_of(1, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("processes", [pytest.param(2, marks=pytest.mark.slow), 3, 4])
def test_theta_to_rounding_and_scores_bit_for_bit(of_one, processes, tmp_path):
    for name, (theta, scores, rows) in results_of(processes, tmp_path).items():
        expected, expected_scores, expected_rows = of_one[name]
        for key, value in expected.items():
            assert relative(theta[key], value) < 1e-12, (name, key)
        assert torch.equal(scores, expected_scores)  # of the same theta, in the same order
        assert [row[:2] for row in rows] == [row[:2] for row in expected_rows]
        skipped = [row[2]["why"] for row in rows if row[0] == "skipped"]
        assert skipped == ["task 5, support y: the batch holds NaN"]  # of a process that may not be the first
        for (_, _, ours), (_, _, theirs) in zip(rows, expected_rows, strict=True):
            assert all(key == "why" or abs(ours[key] - theirs[key]) < 1e-12 for key in theirs)


@pytest.mark.parametrize(("processes", "begin"), [(1, start), (2, start_anew)])
def test_a_whole_run_prints_and_writes_once(processes, begin, tmp_path, capsys):
    process = begin(processes, *RUN, "--out", str(tmp_path / "out"))
    said = finish(process)
    assert process.returncode == 0, said
    assert said.count("meta-testing on 20 tasks") == 1
    assert said.count("everything is in") == 1
    assert main(["run", *RUN[3:], "--out", str(tmp_path / "alone")]) == 0
    ours, alone = (json.loads((tmp_path / name / "results.json").read_text())["results"] for name in ("out", "alone"))
    for row, other in zip(ours["maml"], alone["maml"], strict=True):
        assert abs(row["mean"] - other["mean"]) < 1e-4
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "val"] == [5, 10]
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["threads"] == 1


def test_they_end_early_at_the_same_step(tmp_path, capsys):
    early = ["train.meta_steps=500", "train.validate_every=5", "train.patience=3", "optimizer.lr=0.3"]
    process = start(2, *RUN, *early, "--out", str(tmp_path / "out"))
    said = finish(process)
    assert process.returncode == 0, said
    assert said.count("3 validations without a new best (train.patience)") == 1
    assert main(["run", *RUN[3:], *early, "--out", str(tmp_path / "alone")]) == 0
    ours, alone = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("out", "alone"))
    assert ours["meta_steps"] == alone["meta_steps"] < 500
    printed = " ".join(capsys.readouterr().out.split())
    assert f"trained for {alone['meta_steps']} of 500 meta-steps" in printed
    assert ", ended by train.patience = 3;" in printed


def test_a_test_is_divided_too(tmp_path, capsys):
    assert main(["run", *RUN[3:], "--out", str(tmp_path / "out")]) == 0
    words = ["test", str(tmp_path / "out"), "eval.tasks=40", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "alone")]) == 0
    process = start(2, "-m", "fmaml", *words, "--out", str(tmp_path / "two"))
    said = finish(process)
    assert process.returncode == 0, said
    alone, two = (json.loads((tmp_path / name / "results.json").read_text())["results"] for name in ("alone", "two"))
    assert alone == two


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.meta_batch=1"], r"fmaml: train.meta_batch = 1: fewer tasks than the 2 processes; give at least 2"),
        (["train.meta_stepps=1"], r"train.meta_stepps"),
        (["optimizer.lr=1e30"], r"fmaml: meta-step \d+: .*lower optimizer.lr"),
    ],
)
def test_what_is_wrong_is_told_once(words, message, tmp_path):
    process = start(2, *RUN, *words, "--out", str(tmp_path / "out"))
    said = finish(process)
    assert process.returncode != 0
    own = [line for line in said.splitlines() if line.startswith("fmaml:")]
    assert re.search(message, own[0]), said
    assert sum(bool(re.search(message, line)) for line in own) == 1, said
    assert "Traceback (most recent call last)" not in said.partition("torch/distributed/elastic")[0], said


def test_restarts_need_a_folder(tmp_path):
    said = finish(start(2, *RUN, max_restarts=1))
    assert "fmaml: --max-restarts: a restarted run continues in its folder; name it with --out DIR" in said


def test_meta_batch_for_each(tmp_path):
    words = ["train.meta_batch=5", "train.meta_batch_for=each", "--out", str(tmp_path / "each")]
    finish(start(2, *RUN, *words))
    finish(start(2, *RUN, "train.meta_batch=10", "--out", str(tmp_path / "all")))
    each, both = (fmaml.load(tmp_path / name / "last.safetensors").theta for name in ("each", "all"))
    assert all(torch.equal(value, both[name]) for name, value in each.items())


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_steps(backend, tmp_path):
    words = ["model.hidden=[8]", "algorithm.steps=1", "eval.tasks=2", "train.meta_steps=10", "--out"]
    compiled = [str(HERE / "mishap.py"), f"backend={backend}", *RUN[2:], *words, str(tmp_path / "compiled")]
    for run, compile in (compiled, "true"), ([*RUN, *words, str(tmp_path / "not")], "false"):
        agent = start(2, *run, f"train.compile={compile}")
        said = finish(agent)
        assert agent.returncode == 0, said
        assert said.count("train.compile: compiling the steps") == (compile == "true")
        assert "uncompiled" not in said
    fast, plain = (fmaml.load(tmp_path / name / "last.safetensors").theta for name in ("compiled", "not"))
    assert all(torch.allclose(value, plain[name], rtol=0, atol=1e-5) for name, value in fast.items())


@pytest.mark.parametrize(("tasks", "count"), [(25, 4), (7, 7), (32, 3)])
def test_slices_are_the_meta_batch(monkeypatch, tasks, count):
    monkeypatch.setattr(distributed, "world_size", lambda: count)
    parts = []
    for rank in range(count):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.task_range(tasks))
    assert [i for part in parts for i in part] == list(range(tasks))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match=f"{count - 1} tasks for {count} processes; give each at least one"):
        distributed.task_range(count - 1)


def test_the_script_of_the_page_on_many_processes(tmp_path):
    page = (ROOT / "docs/many_processes.md").read_text(encoding="utf-8")
    (tmp_path / "train.py").write_text(page.partition("```py\n")[2].partition("```")[0])
    losses = []
    for processes in (1, 2):
        agent = start(processes, str(tmp_path / "train.py"))
        said = finish(agent)
        assert agent.returncode == 0, said
        losses.append([float(loss) for loss in re.findall(r"rank \d: (\d+\.\d{6})", said)])  # two may be on one line
    (alone,), (first, second) = losses
    assert first == second
    assert first == pytest.approx(alone, rel=1e-6)  # in float32
