"""A meta-test that is interrupted goes on where it was, and gives what one in a go gives."""

import json

import pytest
import torch
from rich.console import Console

from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.config.settings import EvalSettings
from fmaml.meta_testing import scores as module
from fmaml.meta_testing.saved_scores import SavedScores
from fmaml.training.testing_progress import MetaTestProgress

SETTINGS = EvalSettings(tasks=40, steps=1)


@pytest.fixture
def experiment():
    return build(load_config("sinusoid", []), torch.device("cpu"))


def scored(experiment, path, facts, monkeypatch, calls: int = 1000):
    """The results, and how many ranges of tasks were computed; after ``calls`` of them the test is interrupted."""
    theta = experiment.algorithm.init(experiment.model.init(torch.Generator().manual_seed(0)))
    computed: list[range] = []
    scores_of = module.scores_of

    def counted(experiment, protocol, theta, split, part, steps):
        if len(computed) == calls:
            raise KeyboardInterrupt
        computed.append(part)
        return scores_of(experiment, protocol, theta, split, part, steps)

    with monkeypatch.context() as patched:
        patched.setattr(module, "scores_of", counted)
        saved = SavedScores(path, facts)
        progress = MetaTestProgress(Console(quiet=True), SETTINGS.tasks, 1.0)
        return module.meta_test(experiment, theta, SETTINGS, saved=saved, progress=progress), len(computed)


def test_it_goes_on_where_it_was(experiment, tmp_path, monkeypatch):
    whole, ranges = scored(experiment, tmp_path / "whole", {}, monkeypatch)
    assert ranges == 3
    with pytest.raises(KeyboardInterrupt):
        scored(experiment, tmp_path / "cut", {}, monkeypatch, calls=2)
    assert scored(experiment, tmp_path / "cut", {}, monkeypatch) == (whole, 1)


def test_scores_of_something_else_are_not_used(experiment, tmp_path, monkeypatch):
    scored(experiment, tmp_path / "scores", {"seed": 0}, monkeypatch)
    assert scored(experiment, tmp_path / "scores", {"seed": 1}, monkeypatch)[1] == 3


@pytest.mark.parametrize("damage", ["cut", "garbage", "binary"])
def test_a_damaged_row_is_computed_again(experiment, tmp_path, monkeypatch, damage):
    path = tmp_path / "scores"
    whole, _ = scored(experiment, path, {}, monkeypatch)
    content = path.read_bytes()
    broken = {"cut": content[:-30], "garbage": content + b"{]\n", "binary": content[:-30] + b"\xff\xfe\n"}[damage]
    path.write_bytes(broken)
    assert scored(experiment, path, {}, monkeypatch) == (whole, 0 if damage == "garbage" else 1)
    assert all(json.loads(line) is not None for line in path.read_text().splitlines())


ROW = {"column": "x", "first": 0, "end": 2, "scores": [[1.0], [0.5]]}
FORGED = [[[[1]], [0.5]], [["1"], [0.5]], 5, [[1.0]], [[1.0], [0.5, 0.5]], [[10**400], [0.5]], [], None]


@pytest.mark.parametrize("scores", FORGED, ids=lambda scores: json.dumps(scores)[:20])
def test_forged_scores_are_computed_again(tmp_path, scores):
    path = tmp_path / "scores"
    path.write_text("{}\n" + json.dumps({**ROW, "scores": scores}) + "\n" + "[" * 100_000 + "\n")
    assert SavedScores(path, {}).find("x", range(2)) is None
    path.write_text("{}\n" + json.dumps(ROW) + "\n")
    assert SavedScores(path, {}).find("x", range(2)) is not None


def test_an_empty_file_is_begun(tmp_path):
    (tmp_path / "scores").touch()
    SavedScores(tmp_path / "scores", {"seed": 0})
    assert (tmp_path / "scores").read_text() == '{"seed": 0}\n'


def test_what_is_not_finite_stays_so(tmp_path):
    saved = SavedScores(tmp_path / "scores", {})
    saved.add("x", range(2), torch.tensor([[1.0], [float("nan")]]))
    found = SavedScores(tmp_path / "scores", {}).find("x", range(2))
    assert found is not None
    assert torch.equal(found.isnan(), torch.tensor([[False], [True]]))
