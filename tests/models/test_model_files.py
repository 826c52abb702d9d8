"""A model is one file: it comes back as it was, and what is wrong with a file is one line."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from learners import CONV4, PROTONET, untrained
from PIL import Image
from safetensors.torch import load_file

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error
from fmaml.models.model_file import read_model, write_model


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28)


@pytest.fixture
def learner():
    return untrained(CONV4, PROTONET)


def test_a_run_leaves_a_model_that_is_whole(trained, tmp_path):
    for name in ("model.safetensors", "best.safetensors", "last.safetensors"):
        shutil.copy(trained / name, tmp_path / name)
        learner = fmaml.load(tmp_path / name)
        assert learner.blueprint.model["width"] == 16
        assert learner.metadata["config"]["data"]["ways"] == 5
        assert set(learner.metadata["data"]["digest"]) == {"train", "val", "test"}
        assert learner.metadata["form"] == {"size": 28, "channels": 1, "fit": "pad", "invert": True}
    results = json.loads((trained / "results.json").read_text())
    about = fmaml.load(tmp_path / "model.safetensors").metadata
    label, column = next(iter(results["results"].items()))
    assert about["results"][label] == [[row["mean"], row["ci95"]] for row in column]
    assert about["protocol"] in results["protocol"]
    assert torch.equal(load_file(tmp_path / "model.safetensors")["head.bias"], fmaml.load(trained).theta["head.bias"])


def test_a_model_names_no_folder_of_the_machine_that_trained_it(trained):
    _, metadata = read_model(trained / "model.safetensors")
    assert str(trained.parent) not in json.dumps(metadata)
    assert os.path.expanduser("~") not in json.dumps(metadata)


def test_a_saved_learner_is_the_same(learner, tmp_path):
    learner.save(tmp_path / "model.safetensors")
    back = fmaml.load(tmp_path / "model.safetensors")
    assert back.blueprint == learner.blueprint
    assert all(torch.equal(value, back.theta[name]) for name, value in learner.theta.items())


def test_a_half_as_large_file_is_rounded_once(learner, tmp_path):
    learner.save(tmp_path / "whole.st")
    learner.save(tmp_path / "half.st", half=True)
    assert (tmp_path / "half.st").stat().st_size < 0.6 * (tmp_path / "whole.st").stat().st_size
    back = fmaml.load(tmp_path / "half.st")
    for name, value in learner.theta.items():
        assert back.theta[name].dtype == torch.float32
        assert torch.equal(back.theta[name], torch.from_numpy(value.numpy().astype("float16").astype("float32")))
    back.save(tmp_path / "again.st")
    assert (tmp_path / "again.st").read_bytes() == (tmp_path / "half.st").read_bytes()

    adapted = back.adapt({"a": images(2), "b": images(2)})
    adapted.save(tmp_path / "mine.st")
    stored = load_file(tmp_path / "mine.st")
    assert stored["params/conv1.weight"].dtype == torch.float16
    assert stored["params/head.weight"].dtype == torch.float32, "a task's head is not rounded"
    x = images(4)
    assert torch.equal(fmaml.load_adapted(tmp_path / "mine.st").outputs(x), adapted.outputs(x))


def test_a_tensor_beyond_half_precision_stays_whole(learner, tmp_path):
    theta = {**learner.theta, "conv1.weight": learner.theta["conv1.weight"] * 1e6}
    replace(learner, theta=theta).save(tmp_path / "half.st", half=True)
    assert torch.equal(fmaml.load(tmp_path / "half.st").theta["conv1.weight"], theta["conv1.weight"])


def test_a_saved_adapted_network_predicts_the_same_bits(learner, tmp_path):
    adapted = learner.adapt({"b": images(2), "a": images(1), "c": images(3)})
    adapted.save(tmp_path / "mine.safetensors")
    x = images(4)
    back = fmaml.load_adapted(tmp_path / "mine.safetensors")
    assert back.classes == ["a", "b", "c"]
    assert torch.equal(back.predict(x).probabilities, adapted.predict(x).probabilities)
    assert back.predict(x).labels == adapted.predict(x).labels


def test_each_kind_of_file_says_how_it_is_read(learner, tmp_path):
    learner.save(tmp_path / "learner.st")
    learner.adapt({"a": images(2), "b": images(2)}).save(tmp_path / "adapted.st")
    with pytest.raises(Error, match=r"adapted already; `fmaml predict .* uses it, and so does fmaml\.load_adapted"):
        fmaml.load(tmp_path / "adapted.st")
    with pytest.raises(Error, match=r"not adapted to a task; read it with fmaml\.load"):
        fmaml.load_adapted(tmp_path / "learner.st")


def test_parameters_without_metadata_are_refused(learner, tmp_path):
    write_model(path := tmp_path / "bare.safetensors", learner.theta, None)
    with pytest.raises(Error, match=r"bare\.safetensors: parameters without metadata, .*; give a model that fmaml"):
        fmaml.load(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(learner, tmp_path, part):
    learner.save(path := tmp_path / "model.st")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(Error, match=r"model\.st: damaged or not a model"):
        fmaml.load(path)


def test_a_single_wrong_bit_is_found(learner, tmp_path):
    learner.save(path := tmp_path / "model.st")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(Error, match="its digest does not match"):
        fmaml.load(path)


def changed(learner, path, **metadata):
    tensors = {name: value.clone() for name, value in learner.theta.items()}
    write_model(path, tensors, {**learner.metadata, **metadata})


def test_a_model_of_a_newer_version_is_refused(learner, tmp_path, monkeypatch):
    monkeypatch.setattr("fmaml.models.model_file.FORMAT", 2)
    learner.save(path := tmp_path / "model.st")
    monkeypatch.undo()
    with pytest.raises(Error, match="of format 2, but this fmaml reads format 1; install the version"):
        fmaml.load(path)


HOSTILE = {
    "another function": {"config": {"model": {"name": "os:system"}, "algorithm": {"name": "protonet"}}},
    "a huge network": {"config": {"model": {**CONV4, "width": 10**9}, "algorithm": {"name": "protonet"}}},
    "a large network": {"config": {"model": {**CONV4, "width": 20_000}, "algorithm": {"name": "protonet"}}},
    "an unknown setting": {"config": {"model": {**CONV4, "exec": "rm"}, "algorithm": {"name": "protonet"}}},
    "no settings": {"config": {}},
    "text for a config": {"config": "omniglot"},
    "huge inputs": {"inputs": [3, 10**9, 10**9]},
    "no inputs": {"inputs": []},
    "text for inputs": {"inputs": ["a"]},
    "negative outputs": {"outputs": -1},
    "a fraction of an output": {"outputs": 1.5},
    "a truth value of outputs": {"outputs": True},
    "steps without end": {"steps": 10**9},
    "text for steps": {"steps": "5"},
    "half a step": {"steps": 1.5},
    "other targets": {"targets": "everything"},
    "a form of another size": {"form": {"size": 10**6, "channels": 1}},
    "a form with an unknown key": {"form": {"size": 28, "channels": 1, "exec": "rm"}},
    "an unknown fit": {"form": {"size": 28, "channels": 1, "fit": "burn"}},
    "other parameters": {"config": {"model": {**CONV4, "norm": "none"}, "algorithm": {"name": "protonet"}}},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_are_refused(learner, tmp_path, case):
    changed(learner, path := tmp_path / "model.st", **HOSTILE[case])
    with pytest.raises(Error, match=r"model\.(st|name)[: ]") as raised:
        fmaml.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["[]", "{", "null", '"fmaml"', "1" * 5000, "[" * 100_000])
def test_metadata_that_are_not_an_object_are_refused(learner, tmp_path, text):
    from safetensors.torch import save_file

    save_file(dict(learner.theta), path := tmp_path / "model.st", {"fmaml": text})
    with pytest.raises(Error, match=r"model\.st: "):
        fmaml.load(path)


def test_a_pipe_and_a_missing_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Error, match="not a regular file"):
        fmaml.load(tmp_path / "pipe")
    with pytest.raises(Error, match="no such file, and no model of that name; `fmaml ls models`"):
        fmaml.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match="no model in it"):
        fmaml.load(tmp_path / "empty")


ADAPTED = {  # what is changed in the tensors and the metadata of an adapted network
    "one name twice": ({}, {"classes": ["a", "a"]}),
    "names that are numbers": ({}, {"classes": [1, 2]}),
    "no statistics": ({f"statistics/{i}/{part}": None for i in range(4) for part in ("mean", "variance")}, {}),
    "one norm too few": ({"statistics/3/mean": None, "statistics/3/variance": None}, {}),
    "one norm too many": ({"statistics/4/mean": torch.zeros(8), "statistics/4/variance": torch.ones(8)}, {}),
    "a mean of another width": ({"statistics/0/mean": torch.zeros(3)}, {}),
    "not a number": ({"statistics/1/mean": torch.full((8,), float("nan"))}, {}),
    "a negative variance": ({"statistics/1/variance": -torch.ones(8)}, {}),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_hostile_adapted_networks_are_refused(learner, tmp_path, case):
    learner.adapt({"a": images(2), "b": images(2)}).save(path := tmp_path / "model.st")
    tensors, metadata = read_model(path)
    changes, said = ADAPTED[case]
    changed = {name: value for name, value in (tensors | changes).items() if value is not None}
    write_model(path, changed, {**(metadata or {}), **said})
    with pytest.raises(Error, match=r"model\.st: its (statistics|metadata) are not|model\.st: statistics/") as raised:
        fmaml.load_adapted(path)
    assert "\n" not in str(raised.value)


def test_a_class_name_does_not_command_the_terminal(learner, tmp_path, capsys):
    names = {"\x1b[31mred": images(2), "two\nlines": images(2)}
    learner.adapt(names).save(path := tmp_path / "model.st")
    Image.new("L", (28, 28), 255).save(tmp_path / "new.png")
    for form in ([], ["--csv"]):
        assert main(["predict", str(path), str(tmp_path / "new.png"), *form]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert "two\nlines" not in shown
