"""The accuracy on one's own examples: who is left out, what the simple methods do, and what it says."""

import pytest
import torch

import fmaml
from fmaml.models.cross_validation import by_linear_model, by_nearest, cross_validate, folds_of, leave_out
from fmaml.report.own_accuracy import print_own_accuracy
from fmaml.types import Batch


def measured(learner, by_class):
    adapted = learner.adapt(by_class)
    left_out = leave_out(adapted)
    assert left_out
    return cross_validate(adapted, left_out)


def blobs(classes: int, each: int, spread: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Pictures [each, 1, 28, 28] of each class: one pattern, with noise."""
    rng = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, 1, 28, 28, generator=rng)
    noise = torch.randn(classes, each, 1, 28, 28, generator=rng)
    return dict(zip("abcdefgh", (patterns + spread * noise).clamp(0, 1), strict=False))


@pytest.mark.parametrize(("sizes", "parts"), [([3, 2, 4], 9), ([2, 2], 4), ([1, 3], 3), ([20, 20], 10), ([2] * 20, 10)])
def test_no_part_has_all_examples_of_a_class(sizes, parts):
    y = torch.repeat_interleave(torch.tensor(sizes))
    several = torch.repeat_interleave(torch.tensor(sizes) > 1, torch.tensor(sizes))
    folds = folds_of(y, several)
    assert len(folds[several].unique()) == parts
    assert (folds[~several] == -1).all(), "a class of one example is always learnt"
    for part in folds[several].unique():
        assert all(((y == i) & (folds != part)).any() for i in range(len(sizes)))


def test_pictures_of_clear_classes_are_named_rightly_and_noise_is_not():
    learner = fmaml.load("omniglot_prototypes")
    clear = measured(learner, blobs(3, 4, 0.05))
    assert clear.scores[0].method == "omniglot_prototypes"
    assert [score.accuracy for score in clear.scores] == [1.0] * 3
    assert clear.classes == [("a", 4, 4), ("b", 4, 4), ("c", 4, 4)]
    assert clear.better is None
    noise = measured(learner, {name: torch.rand(8, 1, 28, 28) for name in "ab"})
    assert all(score.accuracy < 0.9 for score in noise.scores), "what was left out is not known"


def test_the_example_that_is_named_has_no_part_in_what_was_learnt():
    """With two examples a class, each of which is like one of the other class, leaving out must fail."""
    one, two = torch.zeros(1, 28, 28), torch.ones(1, 28, 28)
    crossed = {"a": torch.stack([one, two]), "b": torch.stack([one, two])}
    found = measured(fmaml.load("omniglot_prototypes"), crossed)
    assert found.scores[1].accuracy == 0.0


def test_a_single_example_of_each_class_cannot_be_left_out(capsys):
    assert leave_out(fmaml.load("omniglot_prototypes").adapt(blobs(3, 1, 0.1))) is None
    print_own_accuracy(None)
    assert "not measured, because no class has two pictures" in capsys.readouterr().out
    print_own_accuracy(
        measured(fmaml.load("omniglot_prototypes"), {**blobs(3, 2, 0.1), "once": torch.rand(1, 1, 28, 28)})
    )
    out = capsys.readouterr().out
    assert " of 6" in out
    assert "not tested: once, a class of one picture, which cannot be left out" in out


def test_simple_methods_by_hand():
    red, blue = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)
    red[:, 0], blue[:, 2] = 0.9, 0.9
    known = Batch(torch.cat([red, blue]), torch.tensor([0, 0, 1, 1]))
    assert by_nearest(known, torch.stack([blue[0], red[0]]) * 0.9).tolist() == [1, 0]
    assert by_linear_model(known, torch.stack([blue[0], red[0]])).tolist() == [1, 0]
    across, along = torch.zeros(3, 1, 16, 16), torch.zeros(3, 1, 16, 16)
    for i, at in enumerate((3, 7, 11)):
        across[i, 0, at : at + 2], along[i, 0, :, at : at + 2] = 1, 1
    edges = Batch(torch.cat([across[:2], along[:2]]), torch.tensor([0, 0, 1, 1]))
    assert by_linear_model(edges, torch.stack([along[2], across[2]])).tolist() == [1, 0]


def test_a_simple_method_that_is_better_is_named_with_the_cure(capsys):
    learner = fmaml.load("omniglot_prototypes")
    found = measured(learner, blobs(3, 4, 0.05))
    worse = found._replace(scores=[found.scores[0]._replace(right=torch.zeros(12).bool()), *found.scores[1:]])
    print_own_accuracy(worse)
    out = capsys.readouterr().out
    assert "  0.0%  [0.0%, 24.3%]  0 of 12" in out
    assert "nearest example, by pixels is better here: train on more such classes with `fmaml run photos" in out
    print_own_accuracy(worse, photographs=False)
    assert "is better here: give more pictures of each class" in capsys.readouterr().out
