"""Training that starts from a trained model begins with its parameters, or says why it cannot."""

from pathlib import Path

import pytest
import torch

import fmaml
from fmaml.cli.main import main

SMALL = ["data.name=glyphs", "model.width=8", "train.validate_tasks=4", "eval.tasks=4", "eval.steps=1"]


def run(out: Path, *overrides: str) -> int:
    return main(["run", "omniglot", *SMALL, *overrides, "--out", str(out), "--device", "cpu"])


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("first") / "out"
    assert run(out, "train.meta_steps=3") == 0
    return out


def test_no_step_leaves_the_model_as_it_was(first, tmp_path):
    assert run(tmp_path / "out", "train.meta_steps=0", f"train.start={first}") == 0
    before, after = fmaml.load(first).theta, fmaml.load(tmp_path / "out").theta
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run(tmp_path / "fresh", "train.meta_steps=0") == 0
    assert not torch.equal(fmaml.load(tmp_path / "fresh").theta["conv1.weight"], before["conv1.weight"])


def test_another_algorithm_takes_the_networks_parameters(first, tmp_path):
    words = ["algorithm={name: meta_sgd, inner_lr: 0.1, steps: 1}", "train.meta_steps=0", f"train.start={first}"]
    assert run(tmp_path / "out", *words) == 0
    theta = fmaml.load(tmp_path / "out").theta
    assert all(torch.equal(value, theta["params"][name]) for name, value in fmaml.load(first).theta.items())


def test_other_ways_take_all_but_the_head(first, tmp_path):
    assert run(tmp_path / "out", "data.ways=7", "train.meta_steps=0", f"train.start={first}") == 0
    before, after = fmaml.load(first).theta, fmaml.load(tmp_path / "out").theta
    assert torch.equal(before["conv4.weight"], after["conv4.weight"])
    assert after["head.weight"].shape[0] == 7


def test_another_network_is_refused_by_name(first, tmp_path, capsys):
    assert run(tmp_path / "out", "model.width=16", f"train.start={first}") == 2
    assert "conv2.weight is [16, 16, 3, 3] in the network of model.*, but [8, 8" in capsys.readouterr().err
    assert run(tmp_path / "none", f"train.start={tmp_path / 'nothing'}") == 2
    assert "no such file, and no model of that name" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_pretraining_classifies_all_classes_and_maml_starts_from_it(tmp_path):
    batches = ["data.train_batch=32", "algorithm={name: pretrain}", "train.meta_steps=2", "train.baseline=false"]
    assert run(tmp_path / "first", *batches) == 0
    theta = fmaml.load(tmp_path / "first").theta
    assert len(theta["head.weight"]) > 1000, "one output for each training class"
    assert run(tmp_path / "second", "train.meta_steps=0", f"train.start={tmp_path / 'first'}") == 0
    started = fmaml.load(tmp_path / "second").theta
    assert all(torch.equal(value, theta[name]) for name, value in started.items() if "head" not in name)
    assert started["head.weight"].shape == (5, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["algorithm={name: pretrain}"],
            "data.train_batch = null: pretrain needs batches of all training classes; give",
        ),
        (
            ["algorithm={name: pretrain}", "data={name: sinusoid}"],
            "pretrain needs batches of all training classes, which data.name = sinusoid lacks; give another algorithm",
        ),
        (["data.train_batch=64"], "data.train_batch = 64: only algorithm.name = pretrain takes batches of all classes"),
    ],
)
def test_batches_of_all_classes_belong_to_pretraining(words, message, tmp_path, capsys):
    assert run(tmp_path / "out", "train.baseline=false", "train.meta_steps=1", *words) == 2
    assert message in capsys.readouterr().err
