"""A run of `examples/control/navigation.yaml`: its report, its time left, and what does not take its model."""

import json
import re
from pathlib import Path

import pytest
import torch

from examples.control.navigation import navigation
from examples.control.train import train
from fmaml.cli.main import main
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.errors import Error
from fmaml.training.time_left import work_of

pytestmark = pytest.mark.pictures  # of the run that they share

YAML = str(Path(__file__).parents[2] / "examples/control/navigation.yaml")
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false"]
SMALL += ["eval.tasks=3", "eval.steps=2", "data.episodes=3", "data.horizon=6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("navigation") / "run"
    assert main(["run", YAML, *SMALL, "--out", str(out)]) == 0
    return out


def test_the_report_is_whole(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Left out" not in page
    assert "by the loss of their source, not by targets" in page
    assert (folder / "paths.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("example", "states", "actions", "goal"),
    [(YAML, 2, 2, 2), (YAML.replace("navigation", "cheetah"), 13, 4, 1)],
    ids=["navigation", "cheetah"],
)
def test_the_examples_build_what_they_say(example, states, actions, goal):
    """Numbers of a state, of an action, and of a goal."""
    experiment = build(load_config(example), torch.device("cpu"))
    tasks = experiment.source.sample("train", 1, range(2))
    assert tasks.support.x.shape == (2, 20 * 100, actions)
    assert tasks.support.y.shape == (2, 20 * 100, goal)
    params = experiment.model.init(torch.Generator().manual_seed(0))
    assert experiment.model.apply(params, torch.zeros(3, states)).shape == (3, 2 * actions)


def test_a_policy_is_only_for_tasks_with_their_own_loss():
    with pytest.raises(Error, match=r"it needs a loss of their own, which data\.name = sinusoid does not have"):
        load_config("sinusoid", ["model.name=examples.control.policy:policy"])


def test_its_code_is_imported_only_with_trust(folder, capsys):
    capsys.readouterr()
    assert main(["test", str(folder)]) == 2
    assert "its model is examples.control.policy:policy, code outside fmaml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["adapt --support docs/letters/support --out x", "export --to torch --out x"])
def test_what_learns_from_examples_says_that_a_policy_does_not(folder, command, capsys):
    name, *options = command.split()
    capsys.readouterr()
    assert main([name, str(folder), "--trust", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fmaml: {folder}")
    assert "it adapts by a loss of its data, not by examples with targets" in line


def test_it_is_tested_again_as_in_its_run_and_on_other_tasks(folder, tmp_path):
    def returns(where: Path) -> dict[str, list[float]]:
        results = json.loads((where / "results.json").read_text(encoding="utf-8"))["results"]
        return {label: [score["mean"] for score in column] for label, column in results.items()}

    first = returns(folder)
    assert first.keys() == {"maml", "oracle, which knows the goal"}
    assert main(["test", str(folder), "--trust", "--out", str(tmp_path / "again")]) == 0
    again = returns(tmp_path / "again")
    assert again.keys() == first.keys()
    assert all(again[label] == pytest.approx(first[label], rel=1e-5) for label in first)
    assert main(["test", str(folder), "--trust", "seed=1", "data.horizon=5", "--out", str(tmp_path / "other")]) == 0
    assert returns(tmp_path / "other")["maml"] != pytest.approx(first["maml"], rel=1e-2)


def test_data_of_other_targets_are_refused_before_their_settings(folder, capsys):
    capsys.readouterr()
    assert main(["test", str(folder), "--trust", "data.name=omniglot"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("data.name = omniglot: its targets are classes, but the model was trained for own_loss")


def test_another_run_begins_with_it(folder, tmp_path):
    start = f"train.start={folder / 'model.safetensors'}"
    assert main(["run", YAML, *SMALL, start, "--out", str(tmp_path / "next")]) == 0


def test_a_test_is_estimated_as_so_many_validations():
    config = load_config(YAML, ["train.baseline=false"])
    source = navigation(seed=0, device=torch.device("cpu"))
    assert work_of(config, source, 0).testing == config["eval"]["tasks"] / config["train"]["validate_tasks"]


def test_the_page_shows_the_script_and_its_policy_adapts(capsys):
    top = Path(YAML).parents[2]
    shown = re.findall(r"```py\n(.*?)```", (top / "docs/control.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown == [(top / "examples/control/train.py").read_text(encoding="utf-8")]
    assert len(shown[0].splitlines()) <= 80
    before, *after = train(1)
    assert capsys.readouterr().out.startswith("meta-step 0: query loss ")
    assert after == sorted(after)
    assert after[0] > before
