"""Batches of all training classes, for pre-training: right labels, every image alike, test tasks as without."""

import pytest
import torch

from fmaml.data.class_examples import Split, equal_classes, sample_batches
from fmaml.data.episodes import Episode, episodes
from fmaml.data.sources.glyphs import glyphs
from fmaml.rng import fold
from fmaml.tree import take

CPU = torch.device("cpu")
COUNTS = torch.tensor([3, 7, 2])


def numbered() -> Split:
    """Three classes of 3, 7 and 2 "images" that hold their own number."""
    images = torch.arange(12.0)[:, None, None, None]
    return Split(images, torch.tensor([0, 3, 10]), COUNTS, 7)


def test_labels_are_the_classes_and_each_image_is_as_likely():
    support, query = sample_batches(numbered(), fold(5, torch.arange(300)), 41)
    assert support.x.shape == (300, 20, 1, 1, 1)
    assert query.x.shape == (300, 21, 1, 1, 1)
    number = torch.cat([support.x, query.x], 1).flatten().long()
    label = torch.cat([support.y, query.y], 1).flatten()
    assert torch.equal(label, torch.arange(3).repeat_interleave(COUNTS)[number])
    frequency = torch.bincount(number, minlength=12) / len(number)
    assert (frequency - 1 / 12).abs().max() < 0.01


def test_a_source_draws_batches_only_in_training():
    source, plain = (
        glyphs(seed=3, device=CPU, ways=5, shots=2, queries=2, rotate=(), **batch)
        for batch in ({"train_batch": 64}, {})
    )
    train = source.sample("train", 7, range(3))
    classes = source.about["classes"]["train"]
    assert source.outputs == classes
    assert source.about["train_batch"] == 64
    assert train.support.y.shape == train.query.y.shape == (3, 32)
    assert train.support.y.max() < classes
    assert len(torch.cat([train.support.y, train.query.y], 1).unique()) > 100, "not the few classes of a task"
    alone = source.sample("train", 7, range(1, 2))
    assert torch.equal(alone.support.x[0], take(train, 1).support.x), "a task depends on its own number"
    for split in ("val", "test"):
        for ours, theirs in zip(source.sample(split, 0, range(2)), plain.sample(split, 0, range(2)), strict=True):
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.y, theirs.y)


@pytest.mark.parametrize("changes", [["flip"], ["shift", "colour"]])
def test_batches_are_augmented(changes):
    split = equal_classes(torch.randint(256, (10, 4, 3, 16, 16), dtype=torch.uint8))
    splits = {"train": split, "val": split, "test": split}

    def batch(augment):
        return episodes(splits, 0, Episode(5, 1, 1, None, None, augment, 16), {"data": "own"}).sample(
            "train", 1, range(1)
        )

    plain, changed = batch(()), batch(changes)
    assert torch.equal(plain.query.y, changed.query.y)
    assert not torch.equal(plain.query.x, changed.query.x)
