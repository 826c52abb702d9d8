"""`fmaml run navigation`, its report, its time left, and what does not take its model."""

import json
from pathlib import Path

import pytest
import torch

from fmaml.cli.main import main
from fmaml.config.load import load_config
from fmaml.data.sources.navigation import navigation
from fmaml.training.time_left import work_of

pytestmark = pytest.mark.pictures  # of the run that they share

SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false"]
SMALL += ["eval.tasks=3", "eval.steps=2", "data.episodes=3", "data.horizon=6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("navigation") / "run"
    assert main(["run", "navigation", *SMALL, "--out", str(out)]) == 0
    return out


def test_the_report_is_whole(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Left out" not in page
    assert "by the loss of their source, not by targets" in page
    assert (folder / "paths.png").stat().st_size > 10_000


@pytest.mark.parametrize("command", ["adapt --support docs/letters/support --out x", "export --to torch --out x"])
def test_what_learns_from_examples_says_that_a_policy_does_not(folder, command, capsys):
    name, *options = command.split()
    capsys.readouterr()
    assert main([name, str(folder), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fmaml: {folder}")
    assert "it adapts by the loss of its data source, not by examples with targets" in line


def test_it_is_tested_again_as_in_its_run_and_on_other_tasks(folder, tmp_path):
    def returns(where: Path) -> dict[str, list[float]]:
        results = json.loads((where / "results.json").read_text(encoding="utf-8"))["results"]
        return {label: [score["mean"] for score in column] for label, column in results.items()}

    first = returns(folder)
    assert first.keys() == {"maml", "oracle, which knows the goal"}
    assert main(["test", str(folder), "--out", str(tmp_path / "again")]) == 0
    again = returns(tmp_path / "again")
    assert again.keys() == first.keys()
    assert all(again[label] == pytest.approx(first[label], rel=1e-5) for label in first)
    assert main(["test", str(folder), "seed=1", "data.horizon=5", "--out", str(tmp_path / "other")]) == 0
    assert returns(tmp_path / "other")["maml"] != pytest.approx(first["maml"], rel=1e-2)


def test_data_of_other_targets_are_refused_before_their_settings(folder, capsys):
    capsys.readouterr()
    assert main(["test", str(folder), "data.name=omniglot"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("data.name = omniglot: its targets are classes, but the model was trained for own_loss")


def test_another_run_begins_with_it(folder, tmp_path):
    start = f"train.start={folder / 'model.safetensors'}"
    assert main(["run", "navigation", *SMALL, start, "--out", str(tmp_path / "next")]) == 0


def test_a_test_is_estimated_as_so_many_validations():
    config = load_config("navigation", ["train.baseline=false"])
    source = navigation(seed=0, device=torch.device("cpu"))
    assert work_of(config, source, 0).testing == config["eval"]["tasks"] / config["train"]["validate_tasks"]
