"""examples/optuna_search.py: trials judged by validation, then more; a score that is not finite fails one trial."""

import json
import runpy
from pathlib import Path

import optuna
import pytest

from fmaml.cli.main import main
from fmaml.sweep.results import results_of

SCRIPT = Path(__file__).parent.parent / "examples/optuna_search.py"
TINY = ["data.shots=3", "data.queries=3", "model.hidden=[8]", "train.meta_steps=3", "train.meta_batch=2"]
TINY += ["train.validate_tasks=2", "train.baseline=false", "eval.steps=1"]


def test_three_trials_the_last_in_a_second_call(tmp_path):
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 45
    search = runpy.run_path(str(SCRIPT))["main"]
    command = ["sinusoid", *TINY, "--out", str(tmp_path), "--trials"]
    search([*command, "2"])
    search([*command, "1"])
    study = optuna.load_study(study_name="fmaml", storage=f"sqlite:///{tmp_path}/study.db")
    folders = [tmp_path / f"trial-{number}" for number in range(3)]
    validations = [results_of(folder)["validation"]["mean"] for folder in folders]
    assert [trial.value for trial in study.trials] == validations
    assert study.best_value == min(validations)
    assert json.loads((folders[0] / "results.json").read_text())["tasks"] == 1
    assert main(["resume", str(folders[2])]) == 0  # an ordinary run


def test_a_score_that_is_not_finite_fails_its_trial_alone(tmp_path, capsys):
    search = runpy.run_path(str(SCRIPT))["main"]
    words = ["sinusoid", "train.meta_steps=20", "train.validate_every=20", "train.baseline=false"]
    fixed = {"algorithm.inner_lr": 0.9, "optimizer.lr": 1e-3}  # diverges within the 10 inner steps of a validation
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="fmaml")
    study.enqueue_trial(fixed)
    with pytest.raises(SystemExit, match="no trial has a finite score"):
        search([*words, "--trials", "1", "--out", str(tmp_path)])
    study.enqueue_trial(fixed | {"algorithm.inner_lr": 0.01})
    search([*words, "--trials", "1", "--out", str(tmp_path)])
    study = optuna.load_study(study_name="fmaml", storage=f"sqlite:///{tmp_path}/study.db")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert "the best: algorithm.inner_lr=0.01" in capsys.readouterr().out
