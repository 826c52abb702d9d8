"""Pictures that fit no class, in Python: the label, the limit from one's own pictures, and files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import fmaml
from fmaml.calibration import NONE, Calibration
from fmaml.models.cross_validation import leave_out
from fmaml.models.learner import Adapted
from fmaml.models.model_card import calibration_facts
from fmaml.models.model_file import read_model, write_model
from fmaml.models.own_calibration import OwnCalibration, calibrate_on, left_out_classes

LETTERS = Path(__file__).parents[2] / "docs/letters"


def blobs(classes: int, each: int, spread: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Pictures [each, 1, 28, 28] of each class: one pattern, with noise."""
    rng = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, 1, 28, 28, generator=rng)
    noise = torch.randn(classes, each, 1, 28, 28, generator=rng)
    return dict(zip("abcdefghijkl", (patterns + spread * noise).clamp(0, 1), strict=False))


def own_calibration(learner, by_class: dict[str, torch.Tensor]) -> OwnCalibration | None:
    adapted = learner.adapt(by_class)
    return calibrate_on(adapted, leave_out(adapted))


@pytest.fixture(scope="module")
def letters() -> Adapted:
    return fmaml.load("omniglot").adapt(LETTERS / "support")


@pytest.mark.parametrize("name", ["omniglot", "omniglot_prototypes"])
def test_noise_is_refused_and_letters_are_not(name):
    adapted = fmaml.load(name).adapt(LETTERS / "support")
    noise = torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert adapted.predict(noise, reject=0.05).labels == [NONE] * 50
    assert NONE not in adapted.predict(noise).labels
    found = adapted.predict(LETTERS / "new", reject=0.05).labels
    assert found.count(NONE) <= 1, "of 15 letters"
    named = adapted.predict(LETTERS / "new").labels
    assert all(label in (name, NONE) for label, name in zip(found, named, strict=True))


def test_the_last_column_is_none_of_these_and_the_classes_share_the_rest(letters):
    x = torch.rand(3, 1, 28, 28)
    plain, found = letters.predict(x).probabilities, letters.predict(x, reject=0.05).probabilities
    assert found.shape == (3, plain.shape[1] + 1)
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    torch.testing.assert_close(found[:, :-1], plain * (1 - found[:, -1:]))


def test_probabilities_are_divided_by_the_temperature(letters):
    x = torch.rand(3, 1, 28, 28)
    calibrated = letters.with_calibration(Calibration(4.0, [0.0, 1.0]))
    torch.testing.assert_close(calibrated.predict(x).probabilities, F.softmax(letters.outputs(x) / 4, -1))
    assert calibrated.predict(x).labels == letters.predict(x).labels


@pytest.mark.parametrize("directions", [False, True])
def test_distances_are_as_they_were_measured(letters, directions):
    """Those of an earlier version are of whole features; new ones are of features of length 1."""
    x = torch.rand(3, 1, 28, 28)
    found, means = letters.features(x), letters.means
    if directions:
        found, means = (each / each.norm(dim=1, keepdim=True) for each in (found, means))
    expected = torch.stack([(found - mean).norm(dim=1) for mean in means]).amin(0)
    measured = letters.with_calibration(Calibration(1.0, [0.0, 1.0], directions=directions))
    torch.testing.assert_close(measured.distances(x), expected)
    unmeasured = replace(letters, metadata={**letters.metadata, "calibration": None})
    assert torch.equal(unmeasured.distances(x), measured.distances(x)) == directions


def test_more_is_refused_by_a_larger_share(letters):
    x = torch.cat(list(blobs(6, 8, 0.4).values()))
    shares = [letters.predict(x, reject=reject).labels.count(NONE) for reject in (0.01, 0.1, 0.4)]
    assert shares == sorted(shares)


@pytest.mark.parametrize("reject", [-0.1, 0.0, 0.5, float("nan")])
def test_a_share_out_of_range_is_an_error(letters, reject):
    with pytest.raises(ValueError, match="above 0 and below"):
        letters.predict(torch.rand(1, 1, 28, 28), reject=reject)


def test_a_model_without_a_calibration_refuses_nothing(letters):
    old = replace(letters, metadata={**letters.metadata, "calibration": None})
    assert not old.can_reject
    with pytest.raises(ValueError, match="no distances of known pictures"):
        old.predict(torch.rand(1, 1, 28, 28), reject=0.05)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(old.predict(x).probabilities, old.outputs(x).softmax(-1))


def test_a_class_of_that_name_is_a_class():
    adapted = fmaml.load("omniglot").adapt({NONE: torch.rand(1, 1, 28, 28), "a": torch.rand(1, 1, 28, 28)})
    assert not adapted.can_reject
    with pytest.raises(ValueError, match="a class is named 'none of these'"):
        adapted.predict(torch.rand(1, 1, 28, 28), reject=0.05)


def test_a_file_keeps_the_class_means_and_the_calibration(letters, tmp_path):
    x = torch.rand(4, 1, 28, 28)
    letters.save(tmp_path / "mine.safetensors")
    loaded = fmaml.load_adapted(tmp_path / "mine.safetensors")
    assert loaded.calibration == letters.calibration
    for found, expected in zip(loaded.predict(x, reject=0.05), letters.predict(x, reject=0.05), strict=True):
        assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


def test_files_of_earlier_versions_load(letters, tmp_path):
    letters.save(tmp_path / "new.safetensors")
    tensors, metadata = read_model(tmp_path / "new.safetensors")
    assert metadata
    del tensors["means"], metadata["calibration"]
    write_model(tmp_path / "old.safetensors", tensors, metadata)
    old = fmaml.load_adapted(tmp_path / "old.safetensors")
    assert not old.can_reject
    assert len(old.predict(LETTERS / "new").labels) == len(list((LETTERS / "new").iterdir()))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[:, :3].contiguous(),
        lambda m: m[:1],
        lambda m: m[0],
        lambda m: m * float("nan"),
        lambda m: m.double(),
    ],
)
def test_class_means_that_do_not_fit_are_refused(letters, tmp_path, change):
    replace(letters, means=change(letters.means)).save(tmp_path / "bad.safetensors")
    with pytest.raises(fmaml.Error, match=r"class means|statistics"):
        fmaml.load_adapted(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("found", [{}, 3, {"temperature": "x", "distances": []}, {"temperature": 1.0, "distances": 2}])
def test_a_damaged_calibration_is_refused(letters, tmp_path, found):
    replace(letters, metadata={**letters.metadata, "calibration": found}).save(tmp_path / "bad.safetensors")
    with pytest.raises(fmaml.Error, match="calibration"):
        fmaml.load_adapted(tmp_path / "bad.safetensors")


def test_scikit_learn_gets_the_same_probabilities():
    pytest.importorskip("sklearn")
    x = torch.cat(list(blobs(3, 2, 0.1).values()))
    classifier = fmaml.FewShotClassifier("omniglot_prototypes").fit(x.numpy(), [0, 0, 1, 1, 2, 2])
    torch.testing.assert_close(
        torch.from_numpy(classifier.predict_proba(x.numpy())), classifier.adapted_.predict(x).probabilities
    )


def test_each_picture_is_left_out_once_and_a_class_keeps_one():
    """Logits and distances are those of a model that learnt all the others, here by hand."""
    learner, by_class = fmaml.load("omniglot_prototypes"), blobs(3, 4, 0.1) | {"z": torch.rand(1, 1, 28, 28)}
    found = leave_out(learner.adapt(by_class))
    assert found
    assert found.y.bincount().tolist() == [4, 4, 4], "the only picture of z is never left out"
    without = learner.adapt({**by_class, "b": by_class["b"][[0, 2, 3]]})
    torch.testing.assert_close(found.logits[5], without.outputs(by_class["b"][1:2])[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.distances[5], without.distances(by_class["b"][1:2])[0], rtol=1e-4, atol=1e-4)


def test_the_limit_is_that_of_pictures_that_were_left_out():
    adapted = fmaml.load("omniglot_prototypes").adapt(blobs(4, 10, 0.1))
    found = leave_out(adapted)
    own = calibrate_on(adapted, found)
    assert own
    assert found
    assert own.calibration.pictures == 40
    assert (found.distances > own.calibration.limit(0.05)).double().mean().item() == pytest.approx(0.05, abs=1 / 40)
    others = torch.cat(list(left_out_classes(adapted)))
    assert own.refused == int((others > own.calibration.limit(0.05)).sum())
    assert own.refused > 30, "another pattern is farther than the noise of these"
    assert own.area is not None
    assert own.area > 0.9


def test_the_temperature_is_the_models_if_there_are_no_mistakes():
    learner = fmaml.load("omniglot_prototypes")
    clear, unclear = (own_calibration(learner, blobs(4, 15, spread)) for spread in (0.05, 3.0))
    assert clear
    assert unclear
    assert (clear.own_temperature, unclear.own_temperature) == (False, True)
    assert clear.calibration.temperature == learner.metadata["calibration"]["temperature"]
    assert unclear.calibration.temperature > clear.calibration.temperature, "noise is less sure"


def test_few_pictures_or_two_classes():
    learner = fmaml.load("omniglot_prototypes")
    assert own_calibration(learner, blobs(3, 6, 0.1)) is None
    own = own_calibration(learner, blobs(2, 10, 0.1))
    assert own
    assert own.others is None
    assert own.refused == 0


def test_more_than_ten_classes_are_not_all_left_out():
    learner = fmaml.load("omniglot_prototypes")
    assert len(list(left_out_classes(learner.adapt(blobs(12, 2, 0.1))))) == 6
    assert len(list(left_out_classes(learner.adapt(blobs(10, 2, 0.1))))) == 10


def test_a_class_left_out_is_far_from_the_others_by_hand():
    learner, by_class = fmaml.load("omniglot_prototypes"), blobs(3, 3, 0.1)
    for name, found in zip("abc", left_out_classes(learner.adapt(by_class)), strict=True):
        without = learner.adapt({other: x for other, x in by_class.items() if other != name})
        torch.testing.assert_close(found, without.distances(by_class[name]), rtol=1e-4, atol=1e-4)


def test_copies_of_a_picture_give_no_limit():
    """The distance to a copy is 0, which would refuse every new picture."""
    learner, by_class = fmaml.load("omniglot_prototypes"), blobs(3, 15, 0.1)
    copies = {name: x[:1].expand(15, -1, -1, -1) for name, x in by_class.items()}
    assert own_calibration(learner, copies) is None
    near = {name: x + 1e-3 * torch.rand_like(x) for name, x in copies.items()}
    own, adapted = own_calibration(learner, near), learner.adapt(near)
    assert own
    assert adapted.calibration
    assert own.calibration.limit(0.05) == pytest.approx(adapted.calibration.limit(0.75))
    new = torch.cat(list(blobs(3, 15, 0.1, seed=0).values()))
    refused = adapted.with_calibration(own.calibration).predict(new, reject=0.05).labels.count(NONE)
    assert refused < len(new), "new pictures of these classes; without the least limit all are refused"


def test_a_share_that_the_pictures_do_not_support_is_an_error(letters):
    own = letters.with_calibration(Calibration(1.0, [0.0, 1.0], 30))
    assert len(own.predict(torch.rand(1, 1, 28, 28), reject=1 / 31).labels) == 1
    with pytest.raises(ValueError, match=r"on 30 pictures, which support 0\.032 or more; .* adapt to 1000 pictures"):
        own.predict(torch.rand(1, 1, 28, 28), reject=0.001)


def test_the_label_is_the_largest_column(letters):
    """A picture inside the limit has no label none of these, and its class is more likely than that."""
    x = torch.cat(list(blobs(6, 8, 0.4).values()))
    distances = letters.distances(x).sort().values
    calibration = Calibration(20.0, [0.0, *distances[[10, 30]].tolist()], directions=True)
    middle = letters.with_calibration(calibration)
    found = middle.predict(x, reject=0.2)
    assert 0 < found.labels.count(NONE) < len(x)
    columns = [*middle.classes, NONE]
    assert found.labels == [columns[i] for i in found.probabilities.argmax(1).tolist()]
    limit = calibration.limit(0.2)
    assert [label == NONE for label in found.labels] == (letters.distances(x) > limit).tolist()
    assert found.probabilities.amax(1).min() < 0.5, "or none of these above 1/2 would be the same rule"


def test_metadata_stay_json(letters):
    own = letters.with_calibration(Calibration(1.5, [0.0, 1.0]))
    assert json.loads(json.dumps(own.metadata))["calibration"] == {
        "temperature": 1.5,
        "distances": [0.0, 1.0],
        "pictures": 0,
        "directions": False,
    }


def test_a_card_gives_the_measured_numbers():
    found = {"tasks": 7, "temperature": 1.5, "ece": [0.1, 0.02], "auroc": [0.9, 0.01], "refused": [0.05, 0.6]}
    probabilities, none = calibration_facts(found).values()
    assert "error 2.0% on 7 test tasks, with the temperature 1.50 of validation tasks; 10.0% without" in probabilities
    assert "AUROC 90.0% ± 1.0%" in none
    assert "60.0% of them are refused, and 5.0% of the task's own" in none
    assert list(calibration_facts({**found, "auroc": None})) == ["Probabilities"]
    assert calibration_facts(None) == {}
