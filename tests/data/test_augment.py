"""Images of training tasks are mirrored and shifted, each by itself, and those of other tasks never."""

import pytest
import torch

from fmaml.data.augment import augmented, changed
from fmaml.data.class_examples import equal_classes
from fmaml.data.episodes import Episode, episodes
from fmaml.rng import fold
from fmaml.types import Batch, Task

SIZE = 16
MOST = 2  # an eighth of it


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images [2, count, 3, 16, 16] with a key for each."""
    x = torch.rand(2, count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return x, fold(fold(7, torch.arange(2)[:, None]), torch.arange(count))


def shifted(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """An image [3, 16, 16] seen that many pixels further down and right, by padding and cutting."""
    wide = torch.nn.functional.pad(x[None], (MOST,) * 4, mode="reflect")[0]
    return wide[:, MOST + down : MOST + down + SIZE, MOST + right : MOST + right + SIZE]


def test_flip_mirrors_half_of_the_images_left_to_right():
    x, keys = images(500)
    y = changed(x, keys, ["flip"])
    mirrored = (y == x.flip(-1)).flatten(2).all(2)
    assert (mirrored | (y == x).flatten(2).all(2)).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.05


def test_shift_is_padding_by_reflection_and_cutting():
    x, keys = images(200)
    y = changed(x, keys, ["shift"])
    places = [(down, right) for down in range(-MOST, MOST + 1) for right in range(-MOST, MOST + 1)]
    seen = torch.zeros(len(places))
    for image, found in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True):
        same = [torch.equal(found, shifted(image, *place)) for place in places]
        assert sum(same) == 1
        seen += torch.tensor(same)
    assert (seen > 0).all(), "each of the 25 shifts is as likely as any other"
    assert seen.max() < 3 * 400 / 25


def test_both_are_the_shift_of_the_mirrored():
    x, keys = images(50)
    flipped = changed(x, keys, ["flip"])
    both = changed(x, keys, ["flip", "shift"])
    assert torch.equal(changed(x, keys, ["shift", "flip"]), both)
    straight = (flipped == x).flatten(2).all(2)
    assert torch.equal(both[straight], changed(x, keys, ["shift"])[straight])
    places = [(down, right) for down in range(-MOST, MOST + 1) for right in range(-MOST, MOST + 1)]
    for image, found in zip(flipped.flatten(0, 1), both.flatten(0, 1), strict=True):
        assert sum(torch.equal(found, shifted(image, *place)) for place in places) == 1


def test_only_training_tasks_and_each_by_its_own_number():
    images = torch.randint(0, 256, (30, 12, 3, SIZE, SIZE), dtype=torch.uint8)
    train, val, test = map(equal_classes, images.split(10))
    splits = {"train": train, "val": val, "test": test}
    plain = episodes(splits, 1, Episode(ways=5, shots=2, queries=3), {})
    source = episodes(splits, 1, Episode(ways=5, shots=2, queries=3, augment=["flip", "shift"]), {})
    for split in ("val", "test"):
        assert torch.equal(source.sample(split, 3, range(2)).query.x, plain.sample(split, 3, range(2)).query.x)
    tasks, before = source.sample("train", 3, range(4)), plain.sample("train", 3, range(4))
    assert torch.equal(tasks.query.y, before.query.y)
    for batch, other in zip(tasks, before, strict=True):
        assert not torch.equal(batch.x, other.x)
        assert batch.x.shape == other.x.shape
    alone = source.sample("train", 3, range(2, 3))
    assert torch.equal(alone.support.x[0], tasks.support.x[2])
    assert torch.equal(alone.query.x[0], tasks.query.x[2])
    assert source.about["augment"] == ["flip", "shift"]
    assert source.of_features is None  # features of images that change are not computed once


def test_what_is_shown_and_what_is_asked_change_apart():
    """The same images in both: drawn alike, a support image would be its query's twin."""
    x, _ = images(20)
    batch = Batch(x, torch.zeros(2, 20, dtype=torch.long))
    support, query = augmented(Task(batch, batch), fold(7, torch.arange(2)), ["flip", "shift"])
    twins = (support.x == query.x).flatten(2).all(2)
    assert twins.float().mean() < 0.2  # by chance one in fifty
    assert not torch.equal(support.x[0], support.x[1])


@pytest.mark.parametrize("changes", [["flip"], ["shift"], ["flip", "shift"]])
def test_constant_images_stay(changes):
    x, keys = torch.full((2, 5, 3, SIZE, SIZE), 0.25), images(5)[1]
    assert torch.equal(changed(x, keys, changes), x)


def test_colour_multiplies_brightness_contrast_and_saturation():
    x, keys = images(400)
    grey = torch.full_like(x, 0.5)
    factors = changed(grey, keys, ["colour"])[..., 0, 0, 0] / 0.5  # contrast and saturation do not change a grey image
    assert torch.allclose(changed(grey, keys, ["colour"]), (0.5 * factors)[..., None, None, None].expand_as(x))
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4

    x = x.double()
    faint = 0.5 + 0.01 * (x - 0.5)  # so faint that nothing is clamped
    y = changed(faint, keys, ["colour"]) / factors[..., None, None, None]
    light, before = y.mean(2), faint.mean(2)
    contrast = (light.std((-2, -1)) / before.std((-2, -1)))[..., None, None, None]
    assert 0.6 <= contrast.min() < 0.62
    assert 1.38 < contrast.max() <= 1.4
    colourful = ((y - light[:, :, None]) / (faint - before[:, :, None])).flatten(2).median(2).values / contrast[
        ..., 0, 0, 0
    ]
    assert 0.59 < colourful.min() < 0.62
    assert 1.38 < colourful.max() < 1.41
    strong = changed(x, keys, ["colour"])
    assert strong.min() == 0
    assert strong.max() == 1
