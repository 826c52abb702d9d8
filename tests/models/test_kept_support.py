"""Adding pictures to an adapted network is the same as adapting to all of them at once."""

from itertools import permutations

import pytest
import torch
from learners import CONV4, RATES, untrained
from safetensors.torch import load_file
from torch import nn

import fmaml
from fmaml.errors import Error
from fmaml.models.blueprint import read_blueprint
from fmaml.models.cross_validation import cross_validate, leave_out
from fmaml.models.kept_support import from_pixels, to_pixels
from fmaml.models.learner import Learner
from fmaml.models.model_file import read_model, write_model

LAYER_NORM = {**CONV4, "norm": "layer"}
SETTINGS: dict[str, dict[str, float]] = dict.fromkeys(("maml", "proto_maml", "meta_sgd"), RATES)
KEPT_ALWAYS = ("protonet", "r2d2")
SIZES = {"a": 3, "b": 2, "c": 4, "d": 1, "e": 2, "f": 3}


def learner_of(name: str, model=LAYER_NORM, dtype=torch.float64):
    return untrained(model, {"name": name, **SETTINGS.get(name, {})}, dtype)


def pictures(dtype=torch.float64, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.rand(n, 1, 28, 28, generator=rng).to(dtype) for name, n in SIZES.items()}


def parts_of(every: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """All pictures in three parts: with new classes, with more of known ones, and with both."""
    return [
        {"b": every["b"][:1], "e": every["e"], "f": every["f"][1:]},
        {"a": every["a"], "f": every["f"][:1]},
        {"b": every["b"][1:], "c": every["c"], "d": every["d"]},
    ]


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("name", [*KEPT_ALWAYS, *SETTINGS])
def test_adding_in_any_order_is_adapting_to_all_at_once(name, norm):
    learner = learner_of(name, {**CONV4, "norm": norm})
    every, x = pictures(), pictures(seed=1)["c"]
    wanted = learner.adapt(every).outputs(x)
    one_less = learner.adapt({**every, "c": every["c"][1:]}).outputs(x)
    assert (one_less - wanted).abs().max() > 1e-6, "each picture counts"
    for first, *others in permutations(parts_of(every)):
        grown = learner.adapt(first)
        for part in others:
            grown = grown.add(part)
        assert grown.classes == list(SIZES)
        assert grown.counts == SIZES
        assert torch.allclose(grown.outputs(x), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [*KEPT_ALWAYS, "maml", "meta_sgd"])
def test_files_grow_like_networks(name, tmp_path):
    learner = learner_of(name, dtype=torch.float32)
    every, x = pictures(torch.float32), pictures(torch.float32, seed=1)["c"]
    first, *others = parts_of(every)
    grown = learner.adapt(first)
    for part in others:
        grown.save(tmp_path / "mine.safetensors", keep_support=name not in KEPT_ALWAYS)
        grown = fmaml.load_adapted(tmp_path / "mine.safetensors").add(part)
    assert grown.kept is not None
    assert grown.kept.of_features == (name in KEPT_ALWAYS)
    assert torch.allclose(grown.outputs(x), learner.adapt(every).outputs(x), rtol=1e-4, atol=1e-4)


def make_backbone(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """A network with batch norm, as a user's own code may build it; see the next test."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(1352, 16), nn.Linear(16, outputs)
    )


@pytest.mark.parametrize("name", KEPT_ALWAYS)
def test_a_frozen_backbone_needs_no_pictures(name, tmp_path):
    """Its batch norm has statistics of its own, so a small file grows: it holds the head and the features."""
    frozen = {"module": "test_kept_support:make_backbone", "trainable": ["5.*"], "statistics": "frozen"}
    algorithm = {"name": name, "head": "5"}
    config = {"model": {"name": "module", **frozen}, "algorithm": algorithm}
    shape = {"inputs": [1, 28, 28], "outputs": 5, "targets": "classes", "form": None}
    metadata = {"kind": "learner", "name": "frozen", "config": config, "steps": 1, **shape}
    blueprint = read_blueprint(metadata, "frozen", trust=True)
    model, of_theta = blueprint.build(5)
    learner = Learner(metadata, blueprint, of_theta.init(model.init(torch.Generator().manual_seed(0))))
    every, x = pictures(torch.float32), pictures(torch.float32, seed=1)["c"]
    first, *others = parts_of(every)
    learner.adapt(first).save(path := tmp_path / "mine.safetensors")
    assert path.stat().st_size < 10_000
    grown = fmaml.load_adapted(path, trust=True)
    for part in others:
        grown = grown.add(part)
    assert torch.allclose(grown.outputs(x), learner.adapt(every).outputs(x), rtol=1e-4, atol=1e-5)


def test_steps_stay_unless_others_are_given():
    learner, every = learner_of("maml"), pictures()
    x, (first, second, third) = every["a"], parts_of(every)
    grown = learner.adapt(first, steps=1).add(second).add(third)
    assert torch.allclose(grown.outputs(x), learner.adapt(every, steps=1).outputs(x), rtol=0, atol=1e-10)
    grown = learner.adapt(first, steps=1).add(second).add(third, steps=5)
    assert torch.allclose(grown.outputs(x), learner.adapt(every, steps=5).outputs(x), rtol=0, atol=1e-10)


def test_class_numbers_are_positions_and_new_ones_follow_the_last():
    learner = learner_of("protonet")
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(36, 1, 28, 28, generator=rng).double(), torch.arange(36) % 12
    first = y < 9
    grown = learner.adapt(x[first], y[first]).add(x[~first], y[~first])
    whole = learner.adapt(x, y)
    assert grown.classes == whole.classes == list(map(str, range(12)))
    assert torch.allclose(grown.outputs(x), whole.outputs(x), rtol=0, atol=1e-10)
    assert (grown.add(x[:2], torch.tensor([11, 11])).counts or {})["11"] == 5
    with pytest.raises(ValueError, match=r"class numbers must be 0, 1, \.\."):
        grown.add(x[:2], torch.tensor([13, 13]))
    with pytest.raises(ValueError, match="class number has no name"):
        learner.adapt(pictures()).add(x[:2], torch.tensor([6, 6]))


def test_values_grow_too():
    learner = fmaml.load("sinusoid")
    x = torch.linspace(-4, 4, 10)[:, None]
    y = 2 * torch.sin(x - 1)
    grown = learner.adapt(x[:6], y[:6]).add(x[6:], y[6:])
    assert torch.allclose(grown.outputs(x), learner.adapt(x, y).outputs(x), atol=1e-5)
    assert grown.counts == {}


@pytest.mark.parametrize(
    ("name", "norm", "reason"),
    [("maml", "layer", "maml needs them"), ("r2d2", "batch", "r2d2 with batch norm needs them")],
)
def test_a_file_without_its_support_set_names_the_cure(name, norm, reason, tmp_path):
    adapted = learner_of(name, {**CONV4, "norm": norm}, torch.float32).adapt(pictures(torch.float32))
    adapted.save(tmp_path / "mine.safetensors")
    assert not any(key.startswith("kept/") for key in load_file(tmp_path / "mine.safetensors"))
    back = fmaml.load_adapted(tmp_path / "mine.safetensors")
    assert back.counts is None
    with pytest.raises(
        ValueError, match=f"keeps none of its examples, and {reason} .* --keep-support .*keep_support=True"
    ):
        back.add({"g": torch.rand(2, 1, 28, 28)})


def test_a_file_holds_features_alone_and_nothing_twice(tmp_path):
    learner = learner_of("protonet", dtype=torch.float32)
    learner.adapt(pictures(torch.float32)).save(path := tmp_path / "mine.safetensors")
    tensors = load_file(path)
    head = learner.theta["head.weight"]
    assert tensors["kept/x"].shape == (sum(SIZES.values()), head.shape[1])
    assert {key for key in tensors if key.startswith("kept/theta/")} == {
        "kept/theta/head.weight",
        "kept/theta/head.bias",
    }


def test_pictures_take_a_byte_a_value_and_other_numbers_stay():
    whole = torch.arange(256, dtype=torch.uint8)
    x = whole.float() * (1 / 255)
    assert to_pixels(x).dtype == torch.uint8
    assert torch.equal(from_pixels(to_pixels(x)), x)
    for other in (x + 1e-4, x - 1, x.double(), torch.arange(3)):
        assert torch.equal(to_pixels(other), other)


def test_the_accuracy_from_features_is_that_from_pictures(tmp_path):
    """Each left out in turn, by hand, from the pictures themselves."""
    learner = learner_of("r2d2", dtype=torch.float32)
    every = pictures(torch.float32)
    learner.adapt(every).save(tmp_path / "mine.safetensors")
    adapted = fmaml.load_adapted(tmp_path / "mine.safetensors")
    left_out = leave_out(adapted)
    assert left_out
    found = cross_validate(adapted, left_out)
    assert len(found.scores) == 1, "a simple method needs the pictures"
    right = {name: 0 for name in every if len(every[name]) > 1}
    for name in right:
        for i, x in enumerate(every[name]):
            rest = torch.cat([every[name][:i], every[name][i + 1 :]])
            right[name] += learner.adapt({**every, name: rest}).predict(x[None]).labels == [name]
    assert found.classes == [(name, right[name], len(every[name])) for name in right]
    assert found.untested == ["d"]


def test_examples_that_were_learnt_before_are_named(capsys):
    every = pictures()
    adapted = learner_of("protonet").adapt(every)
    adapted.add({"a": torch.cat([every["a"][:2], pictures(seed=1)["d"]])})
    assert "2 of these 3 examples were learnt before; they count once more" in capsys.readouterr().err
    adapted.add({"a": pictures(seed=1)["d"]})
    assert "learnt before" not in capsys.readouterr().err


DAMAGE = {
    "features of another width": {"kept/x": torch.rand(15, 3)},
    "too few targets": {"kept/y": torch.zeros(2, dtype=torch.int64)},
    "a class without an example": {"kept/y": torch.zeros(15, dtype=torch.int64)},
    "targets that are no numbers of classes": {"kept/y": torch.zeros(15)},
    "no features": {"kept/x": None},
    "a head of another shape": {"kept/theta/head.weight": torch.rand(2, 2)},
    "steps below zero": {"steps": -1},
    "an unknown fact": {"unknown": 1},
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_support_set_that_does_not_fit_is_refused(case, tmp_path):
    learner_of("protonet", dtype=torch.float32).adapt(pictures(torch.float32)).save(path := tmp_path / "model.st")
    tensors, metadata = read_model(path)
    assert metadata is not None
    for key, value in DAMAGE[case].items():
        if not key.startswith("kept/"):
            metadata["kept"][key] = value
        elif value is None:
            del tensors[key]
        else:
            tensors[key] = value
    write_model(path, tensors, metadata)
    with pytest.raises(Error, match=r"model\.st: (its support set does not fit its network|head\.weight is)"):
        fmaml.load_adapted(path)
