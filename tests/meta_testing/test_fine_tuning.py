"""Fine-tuning without meta-training, the baseline: chosen on validation tasks, begun at the first parameters."""

import json
import math

import pytest
import torch

from fmaml.cli.main import main
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.losses import transductive
from fmaml.meta_testing.fine_tuning import candidates, fine_tuned
from fmaml.meta_testing.scores import task_scores
from fmaml.training.run_experiment import initial_params

SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=4", "eval.tasks=4", "eval.steps=2"]
CPU = torch.device("cpu")


@pytest.mark.parametrize("data", ["sinusoid", "glyphs"])
def test_it_is_the_best_of_the_candidates_on_validation_tasks(data):
    small = [*SMALL, "data.name=glyphs", "model.width=8"] if data == "glyphs" else SMALL
    config = load_config("omniglot" if data == "glyphs" else "sinusoid", [*small, "train.baseline=fine_tune"])
    experiment = build(config, CPU)
    params = initial_params(experiment, 0, CPU)
    told: list[None] = []
    found = fine_tuned(config, experiment, params, lambda: told.append(None))
    known = dict(candidates(config["data"]["name"], params))
    assert len(told) == len(known) == (24 if data == "glyphs" else 12)
    assert known[found.name] == found.section
    scores = task_scores(found.experiment, transductive, params, "val", 4, 2)[:, 1:].mean()
    for rate in (0.01, 0.1):  # two that any learning should beat or equal
        algorithm = build(
            {**config, "algorithm": {"name": "scratch", "inner_lr": rate, "steps": 1, "only": ["*"], "inner": "sgd"}},
            CPU,
        )
        other = task_scores(algorithm, transductive, params, "val", 4, 2)[:, 1:].mean()
        assert scores >= other if data == "glyphs" else scores <= other


def test_a_run_reports_it_and_a_resumed_one_the_same(tmp_path, capsys):
    words = ["run", "sinusoid", *SMALL, "train.baseline=fine_tune", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [name.split(" by ")[0] for name in first] == ["maml", "fine-tuned"]
    assert all(math.isfinite(row["mean"]) for column in first.values() for row in column)
    assert main(["resume", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"] == first


def test_it_needs_nothing_of_the_algorithm():
    words = ["algorithm.name=protonet", "data.name=glyphs"]
    assert load_config("omniglot", [*words, "train.baseline=fine_tune"])["train"]["baseline"] == "fine_tune"


def test_beside_an_algorithm_without_inner_steps_each_column_has_its_rows(tmp_path, capsys):
    words = ["run", "omniglot", "data.name=glyphs", "algorithm={name: protonet}", "model.width=8", *SMALL]
    assert main([*words, "train.baseline=fine_tune", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [len(column) for column in results.values()] == [1, 1, 3, 3]
    shown = capsys.readouterr().out
    assert all(f"{100 * row['mean']:.2f}%" in shown for column in results.values() for row in column)
