"""What a learner refuses, in one line, where it once answered."""

import numpy as np
import pytest
import torch
from learners import CONV4, MAML, PROTONET, untrained
from PIL import Image

from fmaml.cli import main
from fmaml.errors import UserError

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


def test_no_image_of_a_support_folder_is_passed_over(characters):
    learner, support = untrained(CONV4, PROTONET), characters / "support"
    stray = support / "bird.png"
    Image.new("L", (28, 28)).save(stray)
    with pytest.raises(UserError, match=r"bird.png: lies beside folders of classes"):
        learner.adapt(support)


def test_two_files_of_one_name_are_not_two_classes(tmp_path):
    for name in ("cat.png", "cat.jpg", "dog.png"):
        Image.new("L", (28, 28)).save(tmp_path / name)
    with pytest.raises(UserError, match="has two images called cat; put the images of a class into a folder"):
        untrained(CONV4, PROTONET).adapt(tmp_path)


def test_an_empty_support_set_has_no_class():
    with pytest.raises(UserError, match="the support set: has no class; to tell classes apart it takes two or more"):
        untrained(CONV4, PROTONET).adapt({})


def test_a_strip_is_not_made_a_square_of_gigabytes(tmp_path):
    Image.fromarray(np.zeros((1, 60_000), dtype=np.uint8)).save(tmp_path / "long.png")
    adapted = untrained(CONV4, PROTONET).adapt(images(), LABELS)
    with pytest.raises(UserError, match=r"long.png: 60000 x 1 pixels are too long a strip to make a square of"):
        adapted.predict(tmp_path / "long.png")


@pytest.mark.parametrize(("page", "message"), [(".", "is a folder; name the file"), ("no/x.html", "No such file")])
def test_a_page_that_cannot_be_written_is_named(characters, capsys, monkeypatch, page, message):
    monkeypatch.chdir(characters)
    assert main(["predict", "omniglot_prototypes", "--support", "support", "new", "--html", page]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"fmaml: --html {page}: {message}")
