"""The features of a frozen network are computed once, and training on them is training on the images."""

import json
import sys

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import fmaml
from fmaml.cli.main import main
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.modules import pretrained_networks as networks
from fmaml.training import run_experiment as run
from fmaml.training.frozen_features import cache_frozen_features

CPU, SILENT = torch.device("cpu"), Console(quiet=True)
SMALL = ["train.meta_steps=3", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "data.name=glyphs"]


SEEN: list[int] = []  # the number of images in each call


class Backbone(nn.Module):
    """Images [n, 1, 28, 28] -> features [n, 6], with running statistics; a hook counts the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6)
        self.register_forward_pre_hook(lambda module, args: SEEN.append(args[0].shape[0]))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(images))).mean((2, 3))


@pytest.fixture
def model(monkeypatch, tmp_path):
    """The section ``model`` of a network that the library is said to have."""

    def network(inputs, outputs, network, weights, pretrained):
        with networks.building():
            backbone = Backbone()
        return networks.with_new_head("small", backbone, [0.5], [0.5], inputs, outputs)

    monkeypatch.setattr(networks, "timm_network", network)
    monkeypatch.setitem(networks.NETWORKS, "timm", network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    SEEN.clear()
    return "model={name: timm, network: small, trainable: ['head.*']}"


def trained(model: str, out, *more: str):
    assert main(["run", "omniglot", model, *SMALL, *more, "--device", "cpu", "--out", str(out)]) == 0
    return fmaml.load(out), json.loads((out / "results.json").read_text())["results"]


@pytest.mark.pictures
def test_training_on_features_is_training_on_images(model, tmp_path, capsys, monkeypatch):
    learner, results = trained(model, tmp_path / "features")
    assert (tmp_path / "features" / "task.png").exists()  # of the images, not of their features
    with monkeypatch.context() as patch:
        patch.setattr(run, "cache_frozen_features", lambda console, config, experiment, device: experiment)
        other, expected = trained(model, tmp_path / "images")
    assert list(learner.theta) == ["head.weight", "head.bias"]
    for name, value in other.theta.items():
        assert torch.allclose(learner.theta[name], value, atol=1e-5), name
    assert results == expected
    support = torch.rand(4, 1, 28, 28)
    one, two = (each.adapt(support, torch.tensor([0, 0, 1, 1])).outputs(support) for each in (learner, other))
    assert torch.allclose(one, two, atol=1e-5)  # a trained model takes images


def test_each_image_is_given_to_the_network_once(model, tmp_path, capsys):
    kept = tmp_path / "cache" / "fmaml"
    experiment = build(config := load_config("omniglot", [model, *SMALL]), CPU)
    images = sum(len(split.images) for split in (experiment.source.data or {}).values())  # pyright: ignore
    SEEN.clear()
    known = cache_frozen_features(SILENT, config, experiment, CPU).source
    checked = 3 + 1 + 2 * 3 + 2 * 3  # together, alone, twice in the whole network, and against the run's own network
    tried = 4 * 2 * 3  # each of four models runs its first three images twice more
    built = 2 + checked + tried  # 2 to learn the number of features
    assert sum(SEEN) == images + built
    assert len([file for file in kept.iterdir() if file.name.startswith("features-")]) == 3
    again = cache_frozen_features(SILENT, config, experiment, CPU).source
    assert sum(SEEN) == images + 2 * built - 2 * 3  # the run's own network was tried already
    one, other = known.sample("test", 0, range(3)), again.sample("test", 0, range(3))
    assert torch.equal(one.query.x, other.query.x)
    assert one.query.x.shape == (3, 25, 6)
    plain = experiment.source.sample("test", 0, range(3))
    assert torch.equal(one.support.y, plain.support.y)
    network = networks.network_of(config["model"], (1, 28, 28), 5)
    assert isinstance(network, networks.WithHead)
    with torch.no_grad():
        features = network.backbone((plain.query.x.flatten(0, 1) - 0.5) / 0.5)
    assert torch.allclose(one.query.x.flatten(0, 1), features, atol=1e-6)


@pytest.mark.parametrize(
    "setting", ["model.trainable=['head.*', 'backbone.norm.*']", "model.statistics=batch", "model={name: conv4}"]
)
def test_a_network_that_learns_or_looks_at_the_batch_has_none(model, setting):
    experiment = build(config := load_config("omniglot", [model, *SMALL, setting]), CPU)
    assert cache_frozen_features(SILENT, config, experiment, CPU) is experiment


OWN = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6), nn.Tanh())
        self.classifier = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, outputs))

    def forward(self, x):
        return self.classifier(self.first(x).mean((2, 3)) * SCALE)

SCALE = 1
"""
LAYERS = "nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, outputs))"
LEARNT = "trainable: ['classifier.*'], statistics: frozen"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The section ``model`` of a module of one's own, with its learnt parameters and statistics."""
    (tmp_path / "my_own_features.py").write_text(OWN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_features", raising=False)
    return lambda rest=LEARNT: f"model={{name: module, module: 'my_own_features:Own', {rest}}}"


def test_a_module_of_ones_own_is_trained_on_features(own, tmp_path, capsys, monkeypatch):
    results = []
    for cached in (True, False):
        if not cached:
            monkeypatch.setattr(run, "cache_frozen_features", lambda console, config, experiment, device: experiment)
        out = tmp_path / str(cached)
        assert main(["run", "omniglot", own(), *SMALL, "--device", "cpu", "--out", str(out)]) == 0
        learner = fmaml.load(out, trust=True)
        results.append((learner.theta, json.loads((out / "results.json").read_text())["results"]))
    (theta, scores), (expected, expected_scores) = results
    assert list(theta) == [f"classifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert all(torch.allclose(theta[name], value, atol=1e-5) for name, value in expected.items())
    assert scores == expected_scores
    assert list((tmp_path / "cache" / "fmaml").glob("features-*"))
    assert "features are computed in each task" not in capsys.readouterr().out


def test_changed_code_of_a_module_has_other_features(own, monkeypatch):
    experiment = build(config := load_config("omniglot", [own(), *SMALL]), CPU)
    one = cache_frozen_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    monkeypatch.setattr("my_own_features.SCALE", 2)
    other = cache_frozen_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    assert torch.allclose(other.query.x, 2 * one.query.x)


def test_a_function_that_makes_another_network_each_time_is_not_split(own, monkeypatch, capsys):
    experiment = build(config := load_config("omniglot", [own(), *SMALL]), CPU)
    original = sys.modules["my_own_features"].Own.__init__

    def other(self, outputs):
        original(self, outputs)
        nn.init.ones_(self.first[0].weight)

    monkeypatch.setattr("my_own_features.Own.__init__", other)
    assert cache_frozen_features(Console(), config, experiment, CPU) is experiment
    assert "returns another network in each call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rest", "more", "reason"),
    [
        ("trainable: ['classifier.*'], statistics: batch", [], "the features of an example depend on the other"),
        ("trainable: ['first.1.*', 'classifier.*'], statistics: frozen", [], "no layer but the whole network holds"),
        (LEARNT, ["data.name=sinusoid"], "data.name = sinusoid draws new examples in each task"),
    ],
)
def test_a_line_says_why_features_are_not_computed_once(own, rest, more, reason, capsys):
    experiment = build(config := load_config("omniglot", [own(rest), *SMALL, *more]), CPU)
    assert cache_frozen_features(Console(), config, experiment, CPU) is experiment
    assert capsys.readouterr().out.startswith(f"features are computed in each task: {reason}")


def test_images_that_augmentation_changes_have_no_features(own, capsys):
    experiment = build(config := load_config("omniglot", [own(), *SMALL]), CPU)
    experiment = experiment._replace(source=experiment.source._replace(of_features=None))
    augmented = {**config, "data": {**config["data"], "augment": ["shift"]}}
    assert cache_frozen_features(Console(), augmented, experiment, CPU) is experiment
    assert "features are computed in each task: data.augment changes the images" in capsys.readouterr().out


def test_nothing_is_said_of_a_network_without_frozen_parameters(own, capsys):
    experiment = build(config := load_config("omniglot", [own("statistics: frozen"), *SMALL]), CPU)
    assert cache_frozen_features(Console(), config, experiment, CPU) is experiment
    assert not capsys.readouterr().out


def test_other_weights_have_other_features(model, monkeypatch):
    experiment = build(config := load_config("omniglot", [model, *SMALL]), CPU)
    one = cache_frozen_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    original = Backbone.__init__

    def with_other_weights(self):
        original(self)
        nn.init.ones_(self.conv.weight)

    monkeypatch.setattr(Backbone, "__init__", with_other_weights)
    experiment = build(config, CPU)
    other = cache_frozen_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    assert not torch.allclose(one.query.x, other.query.x)


@pytest.mark.parametrize("algorithm", ["{name: protonet}", "{name: proto_maml, inner_lr: 0.1, steps: 1}"])
def test_prototypes_of_frozen_features_learn_nothing_and_say_a_cure_that_works(algorithm, own, tmp_path, capsys):
    refused, cure = (
        own("trainable: ['head.*'], statistics: frozen"),
        own("trainable: ['first.0.*', 'head.*'], statistics: frozen"),
    )
    out = str(tmp_path / "run")
    common = ["run", "omniglot", f"algorithm={algorithm}", *SMALL, "train.baseline=false", "--device", "cpu"]
    (tmp_path / "my_own_features.py").write_text(
        OWN.replace(LAYERS, "nn.Linear(6, outputs)").replace("classifier", "head")
    )
    assert main([*common, refused, "--out", out]) == 2
    message = capsys.readouterr().err
    assert "only head is trainable, and each task computes it anew, so nothing is learnt; learn a layer" in message
    assert len(message.splitlines()) == 1
    assert main([*common, cure, "--out", out]) == 0


READS = """
from torch import nn

class Own(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(784, outputs)

    def forward(self, x):
        h = self.layer(x.flatten(1))
        return h / h.detach().abs().max().item()
"""


def test_a_network_that_reads_numbers_has_a_cure_that_holds_for_the_whole_run(tmp_path, monkeypatch, capsys):
    """Training, validation, both test protocols and the report."""
    (tmp_path / "my_own_reads.py").write_text(READS)
    monkeypatch.syspath_prepend(tmp_path)
    setting = "model={name: module, module: 'my_own_reads:Own'}"
    common = [
        "run",
        "omniglot",
        setting,
        *SMALL,
        "train.baseline=false",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(common) == 2
    assert 'use batching="loop"' in capsys.readouterr().err
    assert main([*common, "train.batching=loop"]) == 0
    assert "inductive" in (tmp_path / "run/results.json").read_text()
