"""The names of a task's classes are those of the images in it."""

import torch

from fmaml.data.sources.glyphs import draw_all_characters, glyphs

CPU = torch.device("cpu")


def holds(name: str, image: torch.Tensor) -> bool:
    """Whether the image is a drawing of the named glyph, turned as the name says."""
    number, _, turned = name.removeprefix("glyph ").partition(", turned by ")
    turns = int(turned.split()[0]) // 90 if turned else 0
    drawings = draw_all_characters()[int(number)].rot90(turns, (2, 3)).float() / 255
    return bool(((drawings - image).abs() < 1e-5).flatten(1).all(1).any())


def test_each_class_has_the_name_of_what_is_drawn():
    source = glyphs(seed=3, device=CPU, ways=6, train_ways=4)
    assert source.classes_of is not None
    for split, ways in {"train": 4, "val": 6, "test": 6}.items():
        tasks, names = source.sample(split, 2, range(5, 8)), source.classes_of(split, 2, range(5, 8))
        assert [len(row) for row in names] == [ways] * 3
        for i, row in enumerate(names):
            assert len(set(row)) == ways
            assert all(holds(name, image) for name, image in zip(row, tasks.support.x[i], strict=True))


def test_tasks_of_different_sizes_keep_the_names_of_their_labels():
    source = glyphs(seed=0, device=CPU, ways=(2, 5), shots=(1, 2))
    assert source.classes_of is not None
    tasks, names = source.sample("test", 0, range(6)), source.classes_of("test", 0, range(6))
    for i, row in enumerate(names):
        for image, label in zip(tasks.query.x[i], tasks.query.y[i].tolist(), strict=True):
            assert label < 0 or holds(row[label], image)


def test_features_keep_the_names():
    source = glyphs(seed=0, device=CPU)
    assert source.of_features is not None
    assert source.classes_of is not None
    features = source.of_features(lambda images: images.flatten(1).float())
    assert features.classes_of is not None
    assert features.classes_of("test", 0, range(2)) == source.classes_of("test", 0, range(2))
