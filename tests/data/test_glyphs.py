"""The built-in characters: the same everywhere, and about as hard as Omniglot."""

import hashlib
from typing import Any

import pytest
import torch

from fmaml.data.sources.glyphs import draw_all_characters, draw_strokes, glyphs, perturb_strokes, render
from fmaml.errors import Error

CPU = torch.device("cpu")


def test_everyone_has_the_same_alphabet():
    """Pinned: another digest is another data set, and every result on glyphs is to be measured again."""
    assert hashlib.sha256(draw_all_characters().numpy().tobytes()).hexdigest() == DIGEST


DIGEST = "fd2ea4703fae212076b1bbf62ff61226eec334448cdfd3ac78105f62c21a3fb8"


def test_shape_and_ink_are_omniglots():
    made = draw_all_characters()
    assert made.shape == (1623, 20, 1, 28, 28)
    assert made.dtype == torch.uint8
    assert 0.07 < made.float().mean() / 255 < 0.10  # Omniglot: 0.084
    assert made.amax((2, 3, 4)).min() > 100  # nothing is empty
    assert (made.flatten(2).sum(2) / 255).max() < 28 * 28 / 2


def test_no_two_drawings_are_the_same():
    assert len(draw_all_characters().flatten(0, 1).flatten(1).unique(dim=0)) == 1623 * 20


def test_a_part_of_the_alphabet_starts_like_the_whole():
    """Drawings do not depend on how many characters are drawn at a time."""
    control, pen = perturb_strokes(*draw_strokes(1623))
    some = slice(100, 103)
    alone = render(control[some].flatten(0, 1).numpy(), pen[some].flatten(0, 1).numpy())
    assert torch.equal(torch.from_numpy(alone).view(3, 20, 28, 28), draw_all_characters()[some, :, 0])


def test_characters_have_one_to_four_strokes_inside_the_image():
    control, present = draw_strokes(1623)
    counts = present.sum(1).long().bincount()
    assert counts[0] == 0
    assert len(counts) == 5
    assert (counts[1:].diff() > 0).all()
    assert control.abs().max() < 4
    placed, _ = perturb_strokes(control, present)
    inside = ((placed > 0) & (placed < 27)).all(-1)[present[:, None, :, None].expand_as(placed[..., 0]).bool()]
    assert inside.double().mean() > 0.9


def test_a_straight_stroke_is_even_ink_along_its_line():
    control = torch.tensor([[4.0, 14], [12, 14], [20, 14], [24, 14]], dtype=torch.float64).view(1, 1, 4, 2)
    image = render(control.numpy(), torch.full((1, 1), 0.5, dtype=torch.float64).numpy())[0]
    line = image[14, 6:23].astype(float)
    assert line.min() > 0.9 * line.max() > 0
    assert image[:11].max() == image[18:].max() == 0
    assert image[:, :2].max() == image[:, 26:].max() == 0


def test_nearest_neighbour_on_pixels_finds_them_as_hard_as_omniglot():
    """Omniglot: 44 % by the same measure, 41.7 % (cosine) in Vinyals et al. 2016. Chance is 20 %."""
    task = glyphs(seed=0, device=CPU, queries=15).sample("test", 0, range(300))
    guess = torch.cdist(task.query.x.flatten(2), task.support.x.flatten(2)).argmin(2)
    assert 0.40 < (guess == task.query.y).double().mean() < 0.50


@pytest.mark.parametrize("rotate", [(), ("train",), ("train", "val", "test")])
def test_splits_are_disjoint_and_omniglots(rotate):
    source = glyphs(seed=0, device=CPU, ways=20, rotate=rotate)
    turned = {name: size * (4 if name in rotate else 1) for name, size in SIZES.items()}
    assert source.about["classes"] == turned
    assert source.inputs == (1, 28, 28)
    assert source.outputs == 20
    train, val, test = draw_all_characters().split(list(SIZES.values()))
    for split, part in (("train", train), ("val", val), ("test", test)):
        x = source.sample(split, 0, range(2)).support.x
        rows = (x * 255).round().to(torch.uint8).flatten(0, 1)
        turns = [part.flatten(0, 1).rot90(turn, (2, 3)) for turn in range(4 if split in rotate else 1)]
        known = {bytes(image.contiguous().numpy()) for turn in turns for image in turn}
        assert {bytes(row.contiguous().numpy()) for row in rows} <= known


SIZES = {"train": 1100, "val": 100, "test": 423}


def test_more_ways_in_training_than_in_testing():
    source = glyphs(seed=0, device=torch.device("cpu"), ways=5, train_ways=7, queries=2, rotate=())
    shapes = {split: source.sample(split, 1, range(3)).query.x.shape for split in ("train", "val", "test")}
    assert {split: shape[1] for split, shape in shapes.items()} == {"train": 14, "val": 10, "test": 10}
    assert (source.outputs, source.about["train_ways"], source.chance) == (7, 7, 0.2)
    ranged = glyphs(seed=0, device=torch.device("cpu"), ways=5, train_ways=7, shots=(1, 3), queries=2, rotate=())
    support = ranged.sample("train", 1, range(3)).support
    assert support.y.shape == (3, 21)
    assert {int(y.max()) for y in support.y} == {6}


def test_more_shots_in_training_than_in_testing():
    sizes: dict[str, Any] = {"seed": 0, "device": torch.device("cpu"), "queries": 2, "rotate": ()}
    source = glyphs(**sizes, train_shots=10)
    rows = {split: source.sample(split, 1, range(3)).support.y.shape[1] for split in ("train", "val", "test")}
    assert rows == {"train": 50, "val": 5, "test": 5}
    assert source.about["train_shots"] == 10
    assert source.about["protocol"].startswith("5-way 1-shot, 2 queries a class")
    ten_shots = glyphs(**sizes, shots=10)
    x, same_x = (each.sample("train", 1, range(3)).support.x for each in (source, ten_shots))
    assert torch.equal(x, same_x)
    ranged = glyphs(**sizes, shots=(1, 3), train_shots=10).sample("train", 1, range(3)).support
    assert ranged.y.shape == (3, 50)
    assert (ranged.y >= 0).all()


def test_a_split_too_small_for_training_tasks_names_their_settings():
    with pytest.raises(Error, match=r"data\.train_shots \+ data\.queries = 21: .* train .*give train_shots \+"):
        glyphs(seed=0, device=torch.device("cpu"), queries=2, train_shots=19)
    with pytest.raises(Error, match=r"data\.train_ways = 5000: split train has"):
        glyphs(seed=0, device=torch.device("cpu"), train_ways=5000)
