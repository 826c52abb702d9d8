"""What a learner refuses, in one line, where it once answered."""

import numpy as np
import pandas as pd
import pytest
import torch
from learners import CONV4, MAML, PROTONET, untrained
from PIL import Image

import fmaml
from fmaml.cli.main import main
from fmaml.errors import Error

MLP = {"name": "mlp", "hidden": [32]}
LABELS = torch.tensor([0, 0, 1, 1])


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("algorithm", [PROTONET, MAML], ids=lambda a: a["name"])
def test_whole_numbers_are_refused_and_other_floats_are_converted(algorithm):
    learner = untrained(CONV4, algorithm)
    adapted = learner.adapt(images(), LABELS)
    with pytest.raises(ValueError, match=r"takes float32 with values as in training; these are uint8"):
        learner.adapt({"a": images(2), "b": (255 * images(2)).byte()})
    with pytest.raises(ValueError, match="these are int64"):
        adapted.predict(images(2).long())
    assert torch.equal(adapted.outputs(images().double().float()), adapted.outputs(images()))
    assert adapted.predict(images().double()).labels == adapted.predict(images()).labels
    assert adapted.predict(list(images())).labels == adapted.predict(images()).labels


@pytest.mark.parametrize(
    "y",
    [
        torch.zeros(4).long(),  # one class
        torch.full((4,), -100),
        torch.tensor([0, 1, 2, 10**9]),  # once a list of a thousand million names
        torch.tensor([1, 1, 2, 2]),
    ],
)
def test_class_numbers_count_from_0_and_each_has_an_example(y):
    with pytest.raises(ValueError, match=r"class numbers must be 0, 1, \.\. for two or more classes"):
        untrained(CONV4, PROTONET).adapt(images(), y)


@pytest.mark.parametrize("y", [torch.tensor([0, 1]), torch.tensor([0.0, 0, 1, 1]), torch.tensor([[0, 0], [1, 1]])])
def test_targets_are_one_class_number_for_each_example(y):
    with pytest.raises(ValueError, match=r"targets must be int64 \[4\], a class number for each example"):
        untrained(CONV4, PROTONET).adapt(images(), y)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite_has_no_label(value):
    x = images()
    x[2] = value
    with pytest.raises(ValueError, match="predict: image 2: the outputs are not finite"):
        untrained(CONV4, PROTONET).adapt(images(), LABELS).predict(x)


def test_steps_are_refused_where_none_are_taken():
    with pytest.raises(ValueError, match="steps = 3: protonet takes no inner steps"):
        untrained(CONV4, PROTONET).adapt(images(), LABELS, steps=3)


@pytest.mark.parametrize("steps", [-1, 2.5])
def test_steps_are_a_whole_number(steps):
    with pytest.raises(ValueError, match=r"steps = .*must be a whole number, 0 or more"):
        untrained(CONV4, MAML).adapt(images(), LABELS, steps=steps)


def test_an_image_beside_folders_of_classes_is_named(characters, capsys):
    learner, support = untrained(CONV4, PROTONET), characters / "support"
    stray = support / "bird.png"
    Image.new("L", (28, 28)).save(stray)
    assert "bird" not in learner.adapt(support).classes
    assert "skipped 1 image beside folders of images, such as bird.png" in capsys.readouterr().err


def test_two_files_of_one_name_are_not_two_classes(tmp_path):
    for name in ("cat.png", "cat.jpg", "dog.png"):
        Image.new("L", (28, 28)).save(tmp_path / name)
    with pytest.raises(Error, match="has two images called cat; put the images of each class into a folder"):
        untrained(CONV4, PROTONET).adapt(tmp_path)


def test_an_empty_support_set_has_no_class():
    with pytest.raises(Error, match="the support set: has no class; to tell classes apart it takes two or more"):
        untrained(CONV4, PROTONET).adapt({})


def test_a_strip_is_not_made_a_square_of_gigabytes(tmp_path):
    Image.fromarray(np.zeros((1, 60_000), dtype=np.uint8)).save(tmp_path / "long.png")
    adapted = untrained(CONV4, PROTONET).adapt(images(), LABELS)
    with pytest.raises(Error, match=r"long.png: 60000 x 1 pixels: too long to pad to a square"):
        adapted.predict(tmp_path / "long.png")


@pytest.mark.parametrize(("page", "message"), [(".", "is a folder; name the file"), ("no/x.html", "No such file")])
def test_a_page_that_cannot_be_written_is_named(characters, capsys, monkeypatch, page, message):
    monkeypatch.chdir(characters)
    assert main(["predict", "omniglot_prototypes", "--support", "support", "new", "--html", page]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fmaml: --html {page}: {message}")


def learner_of_values() -> fmaml.Learner:
    return untrained(MLP, MAML, inputs=[2], outputs=1, targets="values", form=None)


@pytest.mark.parametrize(
    "given",
    [
        lambda values: values.numpy(),
        lambda values: values.double(),
        lambda values: values.tolist(),
        lambda values: pd.DataFrame(values.numpy()),
    ],
    ids=["numpy", "float64", "lists", "pandas"],
)
def test_numbers_of_any_kind(given):
    learner = learner_of_values()
    x, y, new = (torch.randint(-3, 4, size).float() for size in ((5, 2), (5, 1), (3, 2)))
    expected = learner.adapt(x, y).outputs(new)
    assert torch.equal(learner.adapt(given(x), given(y)).outputs(given(new)), expected)
    assert torch.equal(learner.adapt(x, y[:, 0]).outputs(new), expected)
    assert torch.equal(learner.adapt(x.long(), y.long()).outputs(new.long()), expected)


def test_what_is_wrong_with_numbers_is_one_line():
    learner, x, y = learner_of_values(), torch.zeros(5, 2), torch.zeros(5, 1)
    with pytest.raises(ValueError, match=r"x: this network takes \[n, 2\]; these are \[5, 1\]"):
        learner.adapt(y, y)
    with pytest.raises(ValueError, match=r"adapt: 5 examples need targets \[5, 1\]; these are \[4, 1\]"):
        learner.adapt(x, y[:4])
    with pytest.raises(ValueError, match=r"adapt: 5 examples need targets \[5, 1\]; these are \[5, 3\]"):
        learner.adapt(x, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"x: this network takes numbers \[n, 2\]; this is list: give a tensor"):
        learner.adapt([[1.0, 2.0], [3.0]], y)
    with pytest.raises(ValueError, match=r"trained for values, so x needs its targets: adapt\(x, y\)"):
        learner.adapt("folder")
    signals = untrained({"name": "conv1d", "width": 4}, PROTONET, inputs=[2, 32], form=None)
    with pytest.raises(Error, match=r"folder: this network takes numbers \[n, 2, 32\] and no images; give them in P"):
        signals.adapt("folder")
    assert signals.adapt({"a": np.zeros((1, 2, 32)), "b": np.ones((1, 2, 32))}).classes == ["a", "b"]
    with pytest.raises(ValueError, match=r"x: this network takes float32 .*; these are bool"):
        learner.adapt(x.bool(), y)


@pytest.mark.parametrize("layer", ["norm3", "head"])
def test_cavia_beyond_its_classes_names_the_algorithms_that_can(layer):
    learner = untrained(CONV4, {"name": "cavia", "inner_lr": 0.1, "steps": 1, "layer": layer})
    assert len(learner.adapt({name: torch.rand(1, 1, 28, 28) for name in "abc"}).classes) == 3
    with pytest.raises(fmaml.Error, match=r"7 classes: cavia was trained for 5, .*context\.shift.*; take a model of "):
        learner.adapt({name: torch.rand(1, 1, 28, 28) for name in "abcdefg"})
