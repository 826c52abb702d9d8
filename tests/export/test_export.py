"""A network that was exported gives what the network itself gives, without fmaml."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from learners import CONV4, DRAWINGS, MAML, PROTONET, untrained
from PIL import Image
from torch import Tensor

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error, RunFailed
from fmaml.export import formats as export
from fmaml.export.formats import Format, write_export
from fmaml.export.standalone import adapted_network, feature_extractor
from fmaml.head import features

IMAGES, CLASSES = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
PHOTOGRAPHS = {"inputs": [3, 84, 84], "form": {"size": 84, "channels": 3, "fit": "crop", "invert": False}}
MLP = {"name": "mlp", "hidden": [32]}
TRANSFORMER = {"name": "transformer", "width": 16, "layers": 1}

WITHOUT_FMAML = """
import sys
sys.modules["fmaml"] = None  # importing it fails
import torch
network = torch.export.load(sys.argv[1]).module()
print(network(torch.zeros(2, 1, 28, 28))["probabilities"].sum(-1).tolist())
"""


def run_onnx(path: Path, x: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    arrays = session.run(names, {"x": x.numpy()})
    found = {name: torch.as_tensor(value) for name, value in zip(names, arrays, strict=True)}
    return found, session.get_modelmeta().custom_metadata_map


def run_torch(path: Path, x: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    files = {"classes": "", "preprocessing": "", "model": ""}
    program = torch.export.load(path, extra_files=files)
    return dict(program.module()(x)), files


FIRST = [("stride", "batch"), ("stride", "layer"), ("max", "group"), ("max", "none")]
REST = [("stride", "group"), ("stride", "none"), ("max", "batch"), ("max", "layer")]
GRID = [*FIRST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)]
RUN: dict[Format, Any] = {"onnx": run_onnx, "torch": run_torch}


@pytest.fixture
def support(tmp_path):
    """A folder with a folder of two drawings for each of three letters."""
    pixels = np.random.default_rng(0)
    for name in "abc":
        folder = tmp_path / "letters" / name
        folder.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(pixels.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / f"{i}.png")
    return str(tmp_path / "letters")


@pytest.fixture
def protonet(tmp_path):
    """The file of a learner with batch norm."""
    untrained(CONV4, PROTONET).save(tmp_path / "protonet.safetensors")
    return str(tmp_path / "protonet.safetensors")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """One adapted network in each format."""
    folder, adapted = tmp_path_factory.mktemp("written"), untrained(CONV4, PROTONET).adapt(IMAGES, CLASSES)
    for to in RUN:
        write_export(folder / to, adapted_network(adapted), to)
    return {to: folder / to for to in RUN}


@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize(("pool", "norm"), GRID)
def test_conv4_is_exported(pool, norm, to, tmp_path):
    adapted = untrained({**CONV4, "pool": pool, "norm": norm}, PROTONET).adapt(IMAGES, CLASSES)
    path = tmp_path / "network"
    write_export(path, adapted_network(adapted), to)
    x = torch.rand(5, 1, 28, 28)
    found, _ = RUN[to](path, x)
    assert (found["probabilities"] - adapted.predict(x).probabilities).abs().max() < 1e-5
    assert torch.allclose(found["logits"], adapted.outputs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_photographs_in_colour_are_exported(to, tmp_path):
    learner = untrained({**CONV4, "pool": "max", "width": 64}, PROTONET, **PHOTOGRAPHS)
    adapted = learner.adapt(torch.rand(10, 3, 84, 84), torch.arange(10) % 5)
    write_export(tmp_path / "network", adapted_network(adapted), to)
    x = torch.rand(2, 3, 84, 84)
    found, _ = RUN[to](tmp_path / "network", x)
    wanted = adapted.outputs(x)
    assert (found["logits"] - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert (found["probabilities"] - found["logits"].softmax(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_mlp_gives_values(to, tmp_path):
    adapted = untrained(MLP, MAML, inputs=[1], outputs=1, targets="values", form=None).adapt(
        torch.randn(10, 1), torch.randn(10, 1)
    )
    write_export(tmp_path / "network", adapted_network(adapted), to)
    x = torch.randn(7, 1)
    found, metadata = RUN[to](tmp_path / "network", x)
    assert torch.allclose(found.pop("values"), adapted.outputs(x), rtol=1e-5, atol=1e-5)
    assert not found
    assert json.loads(metadata["preprocessing"]) == {"inputs": [1], "dtype": "float32"}


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_transformer_reads_symbols(to, tmp_path):
    learner = untrained(TRANSFORMER, MAML, inputs=[12], outputs=20, targets="symbols", form=None)
    passages = torch.randint(20, (4, 13))
    adapted = learner.adapt(passages[:, :-1], passages[:, 1:])
    write_export(tmp_path / "network", adapted_network(adapted), to)
    x = torch.randint(20, (3, 12))
    found, metadata = RUN[to](tmp_path / "network", x)
    assert torch.allclose(found["probabilities"], adapted.outputs(x).softmax(-1), atol=1e-5)
    assert json.loads(metadata["preprocessing"]) == {"inputs": [12], "dtype": "int64", "range": [0, 19]}


@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize("algorithm", [{"name": "protonet"}, {"name": "r2d2"}], ids=lambda algorithm: algorithm["name"])
def test_a_learner_without_support_gives_its_features(algorithm, to, tmp_path):
    learner = untrained({**CONV4, "norm": "layer"}, algorithm)
    write_export(tmp_path / "network", feature_extractor(learner), to)
    x = torch.rand(5, 1, 28, 28)
    params = learner.theta if algorithm["name"] == "protonet" else learner.theta["params"]
    wanted = features(learner.blueprint.build(5).model.apply, params, x, "head")
    found, metadata = RUN[to](tmp_path / "network", x)
    assert torch.allclose(found.pop("features"), wanted, rtol=1e-5, atol=1e-5)
    assert not found
    assert json.loads(metadata["classes"]) == []


def test_features_that_depend_on_a_support_set_are_refused():
    with pytest.raises(Error, match="batch norm needs the statistics of a support set; give --support"):
        feature_extractor(untrained(CONV4, PROTONET))
    with pytest.raises(Error, match=r"maml: adapts the whole network.*give --support"):
        feature_extractor(untrained({**CONV4, "norm": "none"}, MAML))


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_the_command_exports_a_support_set_and_an_adapted_file_alike(to, protonet, support, tmp_path, capsys):
    adapted_file, first, second = (str(tmp_path / name) for name in ("mine.safetensors", "first", "second"))
    assert main(["adapt", protonet, "--support", support, "--out", adapted_file]) == 0
    assert main(["export", protonet, "--support", support, "--to", to, "--out", first]) == 0
    assert main(["export", adapted_file, "--to", to, "--out", second]) == 0
    assert f"{second} has the network's outputs to 1e-5" in capsys.readouterr().out
    x = torch.rand(4, 1, 28, 28)
    wanted = fmaml.load_adapted(adapted_file).predict(x).probabilities
    for path in (first, second):
        found, metadata = RUN[to](Path(path), x)
        assert (found["probabilities"] - wanted).abs().max() < 1e-5
        assert json.loads(metadata["classes"]) == ["a", "b", "c"]
        preprocessing = {"inputs": [1, 28, 28], "dtype": "float32", **DRAWINGS, "range": [0, 1]}
        assert json.loads(metadata["preprocessing"]) == preprocessing
        assert json.loads(metadata["model"])["name"] == "untrained"


def test_the_file_for_torch_needs_no_fmaml(written):
    command = [sys.executable, "-c", WITHOUT_FMAML, written["torch"]]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(said) == pytest.approx([1, 1])


def test_inner_steps_are_taken(support, tmp_path):
    untrained(CONV4, MAML).save(tmp_path / "maml.safetensors")
    found = []
    for steps in ("0", "3"):
        path = tmp_path / f"{steps}.onnx"
        arguments = ["export", str(tmp_path / "maml.safetensors"), "--support", support, "--steps", steps]
        assert main([*arguments, "--to", "onnx", "--out", str(path)]) == 0
        found.append(run_onnx(path, torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)))[0]["logits"])
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_onnx_is_valid_and_its_batch_has_a_name(written):
    model = onnx.load(written["onnx"])
    onnx.checker.check_model(model, full_check=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)}
    assert list(shapes) == ["x", "logits", "probabilities"]
    assert all(shape[0].dim_param == "n" for shape in shapes.values())


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_no_path_of_this_machine_is_in_the_file(to, written):
    assert str(Path(fmaml.__file__).parent.parent).encode() not in written[to].read_bytes()


@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_mismatch_is_an_error_and_leaves_no_file(to, wrong, tmp_path, monkeypatch):
    encode, decode = export.FORMATS[to]

    def decode_wrongly(content):
        run = decode(content)
        return lambda x: {name: value + (wrong if len(x) == 17 else 0.0) for name, value in run(x).items()}

    monkeypatch.setitem(export.FORMATS, to, (encode, decode_wrongly))
    network = adapted_network(untrained(CONV4, PROTONET).adapt(IMAGES, CLASSES))
    with pytest.raises(RunFailed, match=f"--to {to}: logits of 17 examples are off by"):
        write_export(tmp_path / "network", network, to)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--to", "pickle"], "invalid choice: 'pickle'"),
        (["--to", "onnx"], "protonet: this network's batch norm needs the statistics of a support set; give --support"),
        (["--to", "onnx", "--steps", "3"], "--steps: inner steps need a support set; give --support too"),
    ],
)
def test_mistakes_are_one_line(more, message, protonet, tmp_path, capsys):
    assert main(["export", protonet, *more, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_overwritten(protonet, support, capsys):
    before = Path(protonet).read_bytes()
    assert main(["export", protonet, "--support", support, "--to", "torch", "--out", protonet]) == 2
    assert "it is not overwritten" in capsys.readouterr().err
    assert Path(protonet).read_bytes() == before


def test_a_missing_package_is_one_line_with_its_cure(protonet, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fmaml.extras.find_spec", lambda name: None if name == "onnxruntime" else find_spec("torch"))
    assert main(["export", protonet, "--to", "onnx", "--out", str(tmp_path / "out")]) == 2
    wanted = "fmaml: --to onnx: needs onnxruntime; pip install 'fmaml[onnx]' installs it\n"
    assert capsys.readouterr().err == wanted
