"""The features of a frozen network are computed once, and training on them is training on the images."""

import json

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
from fmaml.training.frozen_features import with_known_features

CPU, SILENT = torch.device("cpu"), Console(quiet=True)
SMALL = ["train.meta_steps=3", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "data.name=glyphs"]


class Backbone(nn.Module):
    """Images [n, 1, 28, 28] -> features [n, 6], with running statistics; it knows how many images it was given."""

    seen = 0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 6, 5, stride=3), nn.BatchNorm2d(6)

    def forward(self, images: Tensor) -> Tensor:
        Backbone.seen += images.shape[0]
        return torch.tanh(self.norm(self.conv(images))).mean((2, 3))


@pytest.fixture
def model(monkeypatch, tmp_path):
    """The section ``model`` of a network that the library is said to have."""

    def network(inputs, outputs, network, weights):
        with networks.building():
            backbone = Backbone()
        return networks.with_new_head("small", backbone, [0.5], [0.5], inputs, outputs)

    monkeypatch.setattr(networks, "timm_network", network)
    monkeypatch.setitem(networks.NETWORKS, "timm", network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Backbone.seen = 0
    return "model={name: timm, network: small, trainable: ['head.*']}"


def trained(model: str, out, *more: str):
    assert main(["run", "omniglot", model, *SMALL, *more, "--device", "cpu", "--out", str(out)]) == 0
    return fmaml.load(out), json.loads((out / "results.json").read_text())["results"]


def test_training_on_features_is_training_on_images(model, tmp_path, capsys, monkeypatch):
    learner, results = trained(model, tmp_path / "features")
    assert (tmp_path / "features" / "task.png").exists()  # of the images, not of their features
    with monkeypatch.context() as patch:
        patch.setattr(run, "with_known_features", lambda console, config, experiment, device: experiment)
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
    Backbone.seen = 0
    known = with_known_features(SILENT, config, experiment, CPU).source
    built = 2  # to learn the number of features
    assert Backbone.seen == images + built
    assert len([file for file in kept.iterdir() if file.name.startswith("features-")]) == 3
    again = with_known_features(SILENT, config, experiment, CPU).source
    assert Backbone.seen == images + 2 * built
    one, other = known.sample("test", 0, range(3)), again.sample("test", 0, range(3))
    assert torch.equal(one.query.x, other.query.x)
    assert one.query.x.shape == (3, 25, 6)
    plain = experiment.source.sample("test", 0, range(3))
    assert torch.equal(one.support.y, plain.support.y)
    network = networks.frozen_features(config["model"], (1, 28, 28))
    assert network
    features = network.features(plain.query.x.flatten(0, 1))
    assert torch.allclose(one.query.x.flatten(0, 1), features, atol=1e-6)


@pytest.mark.parametrize(
    "setting", ["model.trainable=['head.*', 'backbone.norm.*']", "model.statistics=batch", "model={name: conv4}"]
)
def test_a_network_that_learns_or_looks_at_the_batch_has_none(model, setting):
    experiment = build(config := load_config("omniglot", [model, *SMALL, setting]), CPU)
    assert with_known_features(SILENT, config, experiment, CPU) is experiment


def test_other_weights_have_other_features(model, monkeypatch):
    experiment = build(config := load_config("omniglot", [model, *SMALL]), CPU)
    one = with_known_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    original = Backbone.__init__

    def with_other_weights(self):
        original(self)
        nn.init.ones_(self.conv.weight)

    monkeypatch.setattr(Backbone, "__init__", with_other_weights)
    other = with_known_features(SILENT, config, experiment, CPU).source.sample("test", 0, range(1))
    assert not torch.allclose(one.query.x, other.query.x)
