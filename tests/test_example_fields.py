"""The neural fields of `examples/fields/`: pixels, the network, the tasks, and a run of seconds on drawings."""

import json
import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import fmaml
from fmaml.cli.main import main
from fmaml.data.class_examples import Split
from fmaml.tree import take

TOP = Path(__file__).parent.parent
CPU = torch.device("cpu")
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=5", "--device", "cpu"]


@pytest.fixture
def example(monkeypatch):
    """Return a module of the example by its name, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return lambda name: import_module(f"examples.fields.{name}")


@pytest.fixture
def photos() -> dict[str, Split]:
    """Seven random photographs in each split, one class."""
    images = torch.randint(256, (3, 7, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    one = torch.zeros(1, dtype=torch.int64)
    return {name: Split(part, one, one + 7, 7) for name, part in zip(("train", "val", "test"), images, strict=True)}


def numbers(ground=(0.0,) * 8, *discs) -> torch.Tensor:
    """The numbers of one drawing; a disc is down, right, radius, red, green, blue, each in [0, 1]."""
    return torch.tensor([[*ground, *(value for disc in discs for value in disc)]])


@pytest.mark.parametrize(("error", "decibels"), [(2.0, 0.0), (0.2, 20.0), (0.02, 40.0), (0.0, 100.0)])
def test_the_psnr_of_a_known_error(example, error, decibels):
    truth = torch.full((10, 3), -1.0)
    assert float(example("pixels").psnr(truth + error, truth)) == pytest.approx(decibels, abs=1e-3)
    assert float(example("pixels").psnr(truth - 5, truth)) == 100  # shown as -1


def test_a_drawing_has_its_discs_on_its_ground(example):
    black, unseen = (0.0,) * 8, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    down_left = (0.75, 0.25, 0.2, 1.0, 0.5, 0.0)  # the centre is (0.5, -0.5), the radius 0.24
    picture = example("pixels").draw(numbers(black, unseen, unseen, unseen, down_left)).unflatten(1, (32, 32))[0]
    assert torch.allclose(picture[24, 8], torch.tensor([1.0, 0.0, -1.0]), atol=0.1)
    assert torch.allclose(picture[8, 24], torch.full((3,), -1.0), atol=1e-3)
    assert float((picture[..., 0] > 0).sum()) == pytest.approx(math.pi * (0.24 * 16) ** 2, rel=0.2)
    striped = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.25, 1.0)  # red and blue waves down: 6 radians from the middle
    waves = example("pixels").draw(numbers(striped, *[unseen] * 4)).unflatten(1, (32, 32))[0]
    expected = torch.sin(6 * example("pixels").places(CPU).unflatten(0, (32, 32))[:, 24, 0])
    assert torch.allclose(waves[16:, 24, 0], expected[16:], atol=1e-3)


def test_a_photograph_keeps_its_pixels(example, photos):
    fields, keys = example("fields"), torch.arange(7)
    colours = fields.photographs(photos, 0, "test", keys, range(7)).unflatten(1, (32, 32))
    images = photos["test"].images.movedim(1, -1)
    found = [
        next(i for i in range(7) if torch.allclose((each + 1) * 127.5, images[i] + 0.0, atol=1e-3)) for each in colours
    ]
    assert sorted(found) == [*range(7)] != found  # each one once, shuffled
    assert torch.equal(
        fields.photographs(photos, 0, "test", keys[2:4], range(2, 4)).unflatten(1, (32, 32)), colours[2:4]
    )

    trained = fields.photographs(photos, 0, "train", torch.arange(40), range(40)).unflatten(1, (32, 32))
    images = photos["train"].images.movedim(1, -1) / 127.5 - 1
    same = (trained[:, None] - images).abs().amax((2, 3, 4)) < 1e-5  # [tasks, photographs]
    mirrored = (trained[:, None].flip(3) - images).abs().amax((2, 3, 4)) < 1e-5
    assert ((same | mirrored).sum(1) == 1).all()
    assert 10 < int(same.sum()) < 30
    assert (same | mirrored).any(0).all()


@pytest.mark.real_data("cifar-fs")
def test_the_photographs_of_a_test_are_those_of_its_classes(example, real_data):
    root = real_data / "cifar-fs"
    classes = (root / "splits/bertinetto/test.txt").read_text(encoding="utf-8").split()
    files = [file for name in classes for file in (root / "data" / name).glob("*.png")]
    source = example("fields").fields(seed=0, device=CPU, root=str(root))
    tested = (source.sample("test", 0, range(len(files))).query.y + 1) * 127.5  # [photographs, 1024, 3]
    drawn = {bytes(picture.round().byte().flatten().tolist()) for picture in tested}
    assert drawn == {Image.open(file).convert("RGB").tobytes() for file in files}
    assert set(source.about) == {"data", "files", "split", "license", "task", "protocol"}


def test_the_sets_share_the_pixels(example):
    source = example("fields").fields(seed=0, device=CPU, pixels=300)
    support, query = source.sample("train", 3, range(4))
    assert support.x.shape == (4, 300, 2)
    assert query.y.shape == (4, 724, 3)
    every = example("fields").fields(seed=0, device=CPU).sample("train", 3, range(4))
    assert torch.equal(every.support.y, every.query.y)
    for i in range(4):
        task = fmaml.Task(take(support, i), take(query, i))
        assert torch.equal(example("pictures").whole(task), every.query.y[i])
        assert torch.equal(torch.cat([task.support.x, task.query.x]).unique(dim=0), example("pixels").places(CPU))
    assert not torch.equal(support.x[0], support.x[1])
    with pytest.raises(ValueError, match="pixels = 1024: must be below 1024"):
        example("fields").fields(seed=0, device=CPU, pixels=1024)


def test_the_references_are_those_by_hand(example):
    source = example("fields").fields(seed=0, device=CPU, pixels=40)
    found, tasks = source.references("test", 0, range(2)), source.sample("test", 0, range(2))
    for i in range(2):
        (support, query), weighted = take(tasks, i), []
        for place in query.x.tolist():
            weights = torch.tensor([1 / math.dist(place, seen) ** 4 for seen in support.x.tolist()])
            weighted.append((weights[:, None] * support.y).sum(0) / weights.sum())
        for name, guess in (("near pixels", torch.stack(weighted)), ("mean colour", support.y.mean(0))):
            error = float((guess - query.y).square().mean())
            assert float(found[name][i]) == pytest.approx(10 * math.log10(4 / error), abs=1e-3)


def test_the_network_is_a_siren(example):
    model = example("siren").siren(inputs=(2,), outputs=3, hidden=(256, 256, 256, 256), w0=30.0)
    params, x = model.init(torch.Generator().manual_seed(0)), example("pixels").places(CPU)
    layers = [nn.Linear(*params[f"layer{i}.weight"].T.shape) for i in range(1, 6)]
    for i, layer in enumerate(layers, 1):
        layer.load_state_dict({"weight": params[f"layer{i}.weight"], "bias": params[f"layer{i}.bias"]})
    h = x
    for layer in layers[:-1]:
        before = 30 * layer(h)
        if layer is not layers[0]:
            assert 0.85 < float(before.detach().std()) < 1.15  # at any depth
        h = before.sin()
    assert torch.allclose(model.apply(params, x), layers[-1](h), atol=1e-5)


def test_three_steps_fit_a_drawing_after_training(example):
    source = example("fields").fields(seed=0, device=CPU)
    model = example("siren").siren(inputs=(2,), outputs=3, hidden=(32, 32))
    algorithm = fmaml.meta_sgd(fmaml.supervised(model.apply, source.criterion), inner_lr=0.01, steps=3)
    state = fmaml.init_state(algorithm, fmaml.adam(3e-3), model.init(torch.Generator().manual_seed(0)))
    score, unseen = source.settings[0](model.apply, source.metric.fn), source.sample("test", 0, range(4))
    random = fmaml.evaluate(algorithm, score, state.theta, unseen).mean(0)
    for step in range(40):
        state, _ = fmaml.meta_step(algorithm, fmaml.adam(3e-3), state, source.sample("train", step, range(2)))
    learnt = fmaml.evaluate(algorithm, score, state.theta, unseen).mean(0)
    assert learnt[3] > random[3] + 5
    assert (learnt[1:] > learnt[:-1]).all()


@pytest.mark.pictures
def test_a_run_is_reported_and_its_pictures_appear(example, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert main(["run", "examples/fields/fields.yaml", *SMALL, "model.hidden=[8]", "--out", str(run)]) == 0
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))["results"]
    assert set(results) == {"meta_sgd", "joint training, fine-tuned", "mean colour"}
    assert (run / "appearing.png").exists()
    Image.new("RGB", (60, 40), (255, 0, 51)).save(tmp_path / "red.png")
    red = example("appear").read(str(tmp_path / "red.png"))
    assert torch.allclose(red, torch.tensor([1.0, -1.0, -0.6]).expand(1024, 3), atol=1e-6)
    monkeypatch.chdir(tmp_path)
    example("appear").main(str(run))
    of_tests = (tmp_path / "fields.png").read_bytes()
    example("appear").main(str(run), str(tmp_path / "red.png"))
    assert (tmp_path / "fields.png").read_bytes() != of_tests
