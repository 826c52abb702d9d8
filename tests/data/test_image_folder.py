"""Your own images: classes of any size, split by folders or once at random."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fmaml.data.class_splits import random_split
from fmaml.data.sources.image_folder import folder
from fmaml.errors import Error

CPU = torch.device("cpu")
SIZES = {f"class {i}": 3 + i for i in range(8)}  # ragged: 3 to 10 images


def put(root, classes):
    """Each class a level of red, in images of many sizes and formats."""
    for number, (name, size) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(size):
            image = Image.new("RGB", (20 + 3 * i, 40 - 2 * i), (30 * number, 0, 0))
            image.save(root / name / f"{i}.{('png', 'BMP', 'tiff')[i % 3]}")
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return put(tmp_path / "mine", SIZES)


def load(root, **more):
    settings = {"size": 16, "ways": 2, "shots": 1, "queries": 2, "fractions": [0.5, 0.25, 0.25]} | more
    return folder(seed=0, device=CPU, root=str(root), **settings)


def reds(source, split, tasks=20):
    task = source.sample(split, 0, range(tasks))
    return {round(255 * value) // 30 for value in task.query.x[:, :, 0].flatten().unique().tolist()}


def split_files(root):
    return list((root.parent / "cache" / "fmaml" / "splits").glob("*.json"))


def test_one_level_of_classes_is_split_once_and_stays(root, capsys):
    source = load(root)
    assert source.inputs == (3, 16, 16)
    assert source.about["classes"] == {"train": 4, "val": 2, "test": 2}
    seen = {split: reds(source, split, 60) for split in ("train", "val", "test")}
    assert sorted(number for part in seen.values() for number in part) == list(range(8))  # disjoint, and all
    (file,) = split_files(root)
    assert str(file) in capsys.readouterr().err
    assert file.stem in source.about["protocol"]
    again = load(root)
    assert again.about["protocol"] == source.about["protocol"]
    assert torch.equal(again.sample("test", 0, range(4)).query.x, source.sample("test", 0, range(4)).query.x)


def test_the_file_is_the_split(root):
    load(root)
    (file,) = split_files(root)
    content = json.loads(file.read_text())
    content["classes"] = {"train": [f"class {i}" for i in range(4)], "val": ["class 4", "class 5"], "test": []}
    content["classes"]["test"] = ["class 6", "class 7"]
    file.write_text(json.dumps(content))
    assert reds(load(root), "test") == {6, 7}


def test_nothing_is_written_beside_the_images(root):
    before = sorted(root.rglob("*"))
    load(root)
    assert sorted(root.rglob("*")) == before


def test_another_seed_or_other_fractions_are_another_split():
    names = [f"{i:02}" for i in range(50)]
    first = random_split(names, (0.6, 0.2, 0.2), 0)
    assert [len(part) for part in first.values()] == [30, 10, 10]
    assert sorted(name for part in first.values() for name in part) == names
    assert random_split(names, (0.6, 0.2, 0.2), 1) != first == random_split(names, (0.6, 0.2, 0.2), 0)
    for few in (3, 4, 5):
        for fractions in ((1, 0, 0), (0, 0, 1), (0, 1, 0), (0.64, 0.16, 0.2)):
            assert min(map(len, random_split(names[:few], fractions, 0).values())) >= 1


def test_a_new_class_does_not_change_the_split_in_silence(root):
    load(root)
    put(root, {"newcomer": 5})
    with pytest.raises(Error, match=r"class newcomer differs from the split in .*\.json; .*remove"):
        load(root)
    split_files(root)[0].unlink()
    assert sum(load(root).about["classes"].values()) == 9


def test_a_broken_split_file_is_named(root):
    load(root)
    (file,) = split_files(root)
    file.write_text("{")
    with pytest.raises(Error, match=r"\.json: not a readable split .*remove it"):
        load(root)


def test_a_cache_that_cannot_be_written_costs_lines_and_not_the_run(root, capsys):
    (root.parent / "cache").write_text("in the way")
    assert load(root).about["classes"]["train"] == 4
    assert capsys.readouterr().err.count("cannot write") == 2


def arranged(root, val="val"):
    """The classes in folders train, val, test."""
    for split, numbers in (("train", range(4)), (val, (4, 5)), ("test", (6, 7))):
        for i in numbers:
            shutil.move(root / f"class {i}", root / split / f"class {i}")
    return root


@pytest.mark.parametrize("val", ["val", "validation", "valid", "dev"])
def test_folders_train_val_test(root, val):
    source = load(arranged(root, val))
    assert [reds(source, split) for split in ("train", "val", "test")] == [{0, 1, 2, 3}, {4, 5}, {6, 7}]
    assert "folders train, val and test" in source.about["protocol"]
    assert not split_files(root)


def test_one_channel_is_grey(root):
    source = load(root, channels=1, size=9)
    assert source.inputs == (1, 9, 9)


def test_ragged_classes_are_all_of_their_images(root):
    """The largest class has 10 images, and all of them come up."""
    for i, file in enumerate(sorted((root / "class 7").iterdir())):
        Image.new("L", (16, 16), 10 + i).save(file.with_suffix(".png"))
        if file.suffix != ".png":
            file.unlink()
    source = load(arranged(root))
    levels = (255 * source.sample("test", 0, range(200)).query.x).round().unique().tolist()
    assert {10.0 + i for i in range(10)} <= set(levels)


# ---- what cannot be read


def spoil(root):
    (root / "class 6" / "0.png").write_text("a text")
    (root / "class 7" / "3.png").write_bytes(b"")
    return root


def test_unreadable_images_are_named_and_left_out(root, capsys):
    source = load(arranged(spoil(root)))
    err = capsys.readouterr().err
    assert "2 unreadable images: " in err
    assert "class 6/0.png (cannot identify" in err
    assert "left out of 52 images" in err
    assert source.about["unreadable"] == 2
    assert load(root).about["unreadable"] == 2  # from the cache, too
    x = source.sample("test", 0, range(100)).query.x
    assert {round(v) for v in (255 * x[:, :, 0]).unique().tolist()} == {180, 210}  # no black rows


def test_strict_makes_them_an_error(root):
    load(spoil(root))
    with pytest.raises(Error, match=r"2 unreadable images: .*0\.png \(cannot identify.*every image must be readable"):
        load(root, strict=True)


def test_many_are_counted(root, capsys):
    for file in sorted((root / "class 7").iterdir())[:5]:
        file.write_text("a text")
    load(root)
    assert "5 unreadable images" in (err := capsys.readouterr().err)
    assert "and 2 more" in err


def test_a_class_left_with_too_few_is_named(root):
    (root / "class 0" / "0.png").write_text("a text")
    with pytest.raises(Error, match=r"shots \+ data\.queries = 3: class class 0 of split \w+ has 2 examples"):
        load(root)


FAULTS = {
    "no folder": (lambda root: shutil.rmtree(root), r"data\.root = .*mine: no such folder or file; name"),
    "empty": (lambda root: [shutil.rmtree(part) for part in root.iterdir()], r"mine: no class in it; expected"),
    "files only": (lambda root: flatten(root), r"mine: no class in it; expected a folder of images for each class"),
    "two classes": (
        lambda root: [shutil.rmtree(root / f"class {i}") for i in range(6)],
        r"2 classes cannot be split into train, val and test; give 3 or more",
    ),
    "too few classes for the ways": (
        lambda root: [shutil.rmtree(root / f"class {i}") for i in range(4)],
        r"data\.ways = 2: split val, made at random, has 1 of 4 classes, .*; give fewer ways, or 6 classes or more",
    ),
}


def flatten(root):
    for file in list(root.rglob("*.png")):
        shutil.move(file, root / f"{file.parent.name}-{file.name}")
    for part in list(root.iterdir()):
        if part.is_dir():
            shutil.rmtree(part)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_folder_is_one_message(root, fault):
    break_it, message = FAULTS[fault]
    break_it(root)
    with pytest.raises(Error, match=message):
        load(root)


def test_what_is_no_image_and_what_is_hidden_is_passed_over(root):
    (root / "class 0" / "Thumbs.db").write_bytes(b"junk")
    (root / "class 0" / ".hidden.png").write_bytes(b"junk")
    (root / ".DS_Store").write_bytes(b"junk")
    (root / "notes.txt").write_text("notes")
    assert load(root).about["unreadable"] == 0


def test_tasks_of_different_sizes(root):
    source = load(arranged(root), ways=[2, 2], shots=[1, 2], queries=[1, 1])
    y = source.sample("train", 0, range(50)).support.y
    assert np.isin(y, (-1, 0, 1)).all()
    assert source.about["task"] == "2-way 1 to 2-shot"


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_in_two_splits_is_refused_or_said(root, tmp_path, split):
    """Results on classes that were trained on once passed for results on unseen ones."""
    mine = tmp_path / "split"
    for part, classes in {"train": [0, 1, 2], "val": [3, 4], "test": [5, 6]}.items():
        put(mine / part, {f"class {i}": 5 for i in classes})
    assert "from 2 unseen classes" in load(mine).about["protocol"]
    put(mine / split, {"class 1": 5})
    with pytest.raises(Error, match=r"class class 1 is in more than one split.*data.shared_classes=true"):
        load(mine)
    about = load(mine, shared_classes=True).about
    assert "classes, some seen in training" in about["protocol"]
    assert "unseen" not in about["protocol"]
    assert about["shared_classes"] == ["class 1"]
