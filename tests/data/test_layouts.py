"""Folders of images as public sets have them: nested, half split, a class called train, and all that lies around."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fmaml.data.class_splits import stored_split, three_splits
from fmaml.data.images.label_table import read_labelled
from fmaml.data.images.layouts import Layout, read_image_folder
from fmaml.data.sources.image_folder import folder
from fmaml.errors import Error

FRACTIONS = (0.64, 0.16, 0.2)
FRUIT = [f"Fruit/{kind}/{sort}" for kind in ("Apple", "Pear") for sort in ("Golden", "Red", "Green")]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def put(root: Path, *classes: str, images: int = 4, suffix: str = "jpg") -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            Image.new("RGB", (12, 10), (20 * number, 10 * i, 0)).save(root / name / f"{i}.{suffix}")
    return root


def split(root: Path, layout: Layout = "auto", *, allow_shared=False):
    return three_splits(read_image_folder(root, layout), root, FRACTIONS, 0, allow_shared=allow_shared)


def load(root, **more):
    settings: dict[str, Any] = {"size": 8, "ways": 2, "shots": 1, "queries": 2} | more
    return folder(seed=0, device=torch.device("cpu"), root=str(root), **settings)


def names(listing):
    return {part: list(classes) for part, classes in listing.items()}


def test_a_class_is_named_by_its_path_to_any_depth(root):
    put(root, *FRUIT, "Nut", "a/b/c/d/e/f")
    found = read_image_folder(root, "classes")
    assert list(found.classes) == sorted([*FRUIT, "Nut", "a/b/c/d/e/f"])
    assert found.classes["Fruit/Apple/Red"] == [f"{root}/Fruit/Apple/Red/{i}.jpg" for i in range(4)]
    assert (found.splits, found.lines) == (None, [])
    assert sum(load(root, ways=1, layout="classes").about["classes"].values()) == 8


@pytest.mark.parametrize("parents", [("fold1", "fold2"), ("support", "query"), ("x/a", "y")])
def test_folders_of_one_name_in_several_places_are_asked_about(root, parents):
    put(root, *[f"{parent}/{name}" for parent in parents for name in ("cat", "dog", "owl", "pig")])
    with pytest.raises(Error, match=r"folders called cat are in .*layout=merged .*data\.root=.*layout=classes"):
        read_image_folder(root, "auto")
    assert {name: len(files) for name, files in read_image_folder(root, "merged").classes.items()} == {
        "cat": 8, "dog": 8, "owl": 8, "pig": 8
    }  # fmt: skip
    assert len(read_image_folder(root, "classes").classes) == 8
    with pytest.raises(Error, match=r"class cat is in .*such as --support "):
        read_labelled(root)


def test_two_classes_in_two_places_are_asked_about_if_the_places_have_no_other(root):
    put(root, *[f"{parent}/{name}" for parent in ("fold1", "fold2") for name in ("cat", "dog")])
    with pytest.raises(Error, match=r"folders called cat are in fold1 and fold2; give data\.layout=merged"):
        read_image_folder(root, "auto")
    with pytest.raises(
        Error, match=r"class cat is in fold1 and fold2; .* or rename folders that are different classes"
    ):
        read_labelled(root)
    put(root, "fold2/owl")
    assert len(read_image_folder(root, "auto").classes) == 5, "such as Apple/Golden and Pear/Golden"


def test_a_split_within_a_folder_of_its_own_name_is_read(root):
    put(root, *[f"{split}/{split}/{name}" for split in ("training_set", "test_set") for name in ("cat", "dog")])
    with pytest.raises(Error, match="class cat, dog is in more than one split"):
        split(root)


def test_nested_classes_in_splits(root):
    """train/Fruit/Apple/Golden/*.jpg"""
    put(root / "train", *FRUIT)
    put(root / "val", "Nut/Hazel", "Nut/Wal")
    put(root / "test", "Root/Carrot", "Root/Beet")
    found = split(root)
    assert names(found.listing) == {
        "train": sorted(FRUIT),
        "val": ["Nut/Hazel", "Nut/Wal"],
        "test": ["Root/Beet", "Root/Carrot"],
    }
    assert found.origin == "folders train, val and test"


@pytest.mark.parametrize(
    ("folders", "made"),
    [
        (["train", "test"], "val"),
        (["Training", "Validation"], "test"),
        (["valid", "testing"], "train"),
        (["train", "dev"], "test"),
    ],
)
def test_a_split_that_lacks_is_made_of_the_others_once(root, folders, made):
    for number, name in enumerate(folders):
        put(root / name, *(f"{number}-{i}" for i in range(10)))
    found = split(root)
    assert list(found.listing) == ["train", "val", "test"]
    assert all(found.listing.values())
    every = [name for part in found.listing.values() for name in part]
    assert sorted(every) == sorted(f"{number}-{i}" for number in (0, 1) for i in range(10))  # each once
    assert len(found.listing[made]) == {"val": 2, "test": 2, "train": 8}[made]  # of the 10 of another
    assert f"; {made} of the classes of " in found.origin
    assert "random split set-" in found.origin
    assert names(split(root).listing) == names(found.listing)
    put(root / folders[0], "late")
    with pytest.raises(Error, match="class late differs from the split in "):
        split(root)


def test_another_seed_makes_another_split(root):
    put(root / "train", *(f"c{i}" for i in range(20)))
    put(root / "test", "x", "y")
    found = read_image_folder(root, "auto")
    made = [names(three_splits(found, root, FRACTIONS, seed, allow_shared=False).listing)["val"] for seed in range(4)]
    assert len({tuple(part) for part in made}) > 1


def test_the_summary_says_which_split_was_made(root):
    put(root / "train", *"abcdefghij")
    put(root / "test", "x", "y")
    protocol = load(root).about["protocol"]
    assert "from 2 unseen classes (folders train and test; val of the classes of train, random split set-" in protocol


def test_a_folder_train_alone_is_split(root):
    put(root / "train", *FRUIT)
    assert sorted(name for part in split(root).listing.values() for name in part) == sorted(FRUIT)


def test_a_class_called_train_is_a_class(root):
    put(root, "train", "car", "bus", "test")
    found = read_image_folder(root, "auto")
    assert list(found.classes) == ["bus", "car", "test", "train"]
    assert found.splits is None
    assert sum(map(len, split(root).listing.values())) == 4
    (line,) = found.lines
    assert (
        line == f"{root}: test and train read as classes, like the other folders; a split needs a folder for each class"
    )


def test_kinds_of_train_beside_other_classes_are_a_doubt_that_is_said(root):
    put(root, "train/steam", "train/diesel", "car", "bus")
    found = read_image_folder(root, "auto")
    assert list(found.classes) == ["bus", "car", "train/diesel", "train/steam"]
    assert found.lines == [
        f"{root}: train read as classes, like the other folders; data.layout=splits reads them as splits"
    ]
    assert read_image_folder(root, "classes") == found._replace(lines=[])
    as_splits = read_image_folder(root, "splits")
    assert as_splits.splits is not None
    assert names(as_splits.splits) == {"train": ["diesel", "steam"]}
    assert as_splits.lines == [
        f"{root}: train read as splits, and bus and car left out; "
        "data.layout=classes makes each folder of images a class"
    ]


def test_a_flat_test_folder_is_no_split_and_is_named(root):
    """As in competitions, whose test images have no labels."""
    put(root / "train", *"abcde")
    put(root, "test")
    found = read_image_folder(root, "auto")
    assert found.splits is not None
    assert names(found.splits) == {"train": [*"abcde"]}
    assert "test left out" in found.lines[0]


def test_splits_by_name_alone_can_be_had_as_classes(root):
    put(root / "train", "a", "b")
    put(root / "test", "a", "b")
    assert list(read_image_folder(root, "classes").classes) == ["test/a", "test/b", "train/a", "train/b"]


SHARED = (
    r"class a, b, c and 1 more is in more than one split.*Give data\.root=(.*) to split classes at random, or "
    r"data\.shared_classes=true"
)


def test_train_and_test_of_the_same_classes_are_refused_with_cures_that_work(root):
    """A set made for ordinary classification."""
    put(root / "Training", *"abcd", "only here")
    put(root / "Test", *"abcd")
    with pytest.raises(Error, match=SHARED) as error:
        load(root)
    (cure,) = re.findall(SHARED, str(error.value))
    assert cure == f"{root}/Training"
    assert sum(load(cure, ways=1, queries=1, shots=1).about["classes"].values()) == 5
    about = load(root, shared_classes=True, ways=1).about
    assert "some seen in training" in about["protocol"]
    assert about["shared_classes"] == [*"abcd"]


REFUSED = {
    "no split": (lambda root: put(root, "a"), "splits", r"data\.layout = splits: .* has no folder train, val or test"),
    "train twice": (
        lambda root: put(root, "train/a", "Training/b", "test/c"),
        "auto",
        r"Training and train are the same split; rename one, or give data\.layout=classes",
    ),
    "nothing": (
        lambda root: None,
        "auto",
        r"set: no class in it; expected a folder of images for each class: .*set/CLASS/\*\.jpg",
    ),
    "images beside each other": (
        lambda root: put(root, "."),
        "auto",
        r"no class in it; .*skipped 4 images beside folders of images, such as 0\.jpg",
    ),
    "pictures of a telephone": (
        lambda root: [(root / "a").mkdir(), (root / "a" / "IMG_1.HEIC").write_bytes(b"x")],
        "auto",
        r"no class in it; .*skipped 1 HEIC file, such as a/IMG_1\.HEIC: .*save them as JPEG",
    ),
    "one class for two splits": (
        lambda root: put(root, "train/a", "test/b"),
        "auto",
        r"1 classes cannot be split into train and val; give 2 or more",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_refusal_is_a_line_with_the_cure(root, fault):
    make, layout, message = REFUSED[fault]
    make(root)
    with pytest.raises(Error, match=message) as error:
        split(root, layout)
    assert "\n" not in str(error.value)


def test_what_is_skipped_is_counted_and_named_once(root):
    put(root, "cat", "dog/small", "dog/large")
    put(root, "CAPITALS", suffix="JPG")
    for name in ("cat/IMG_1.HEIC", "cat/IMG_2.heic", "cat/a.CR2", "notes.txt", "cat/words.xml"):
        (root / name).write_bytes(b"x")
    for name in ("Thumbs.db", "cat/desktop.ini", ".DS_Store", "cat/.hidden.jpg"):
        (root / name).write_bytes(b"x")
    shutil.copy(root / "cat" / "0.jpg", root / "dog" / "mixed.jpg")
    (root / "nobody").mkdir()
    (root / ".git").mkdir()
    found = read_image_folder(root, "auto")
    assert {name: len(files) for name, files in found.classes.items()} == {
        **{"CAPITALS": 4, "cat": 4},
        **{"dog/large": 4, "dog/small": 4},
    }
    pictures, stray, empty, others = found.lines
    assert pictures.startswith(
        "skipped 2 HEIC and 1 raw files, such as cat/IMG_1.HEIC: they cannot be decoded; save them"
    )
    assert stray.startswith("skipped 1 image beside folders of images, such as dog/mixed.jpg: ")
    assert empty.startswith("skipped 1 folder without an image, such as nobody; ")
    assert others.startswith("skipped 2 files without the suffix of an image, such as cat/words.xml; ")


def test_what_is_skipped_is_told_when_a_run_begins(root, capsys):
    put(root, *"abcdef")
    (root / "a" / "IMG_1.HEIC").write_bytes(b"x")
    load(root, ways=1)
    assert "fmaml: skipped 1 HEIC file, such as a/IMG_1.HEIC" in capsys.readouterr().err


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    put(tmp_path / "elsewhere", "far")
    put(root, "near")
    os.symlink(tmp_path / "elsewhere" / "far", root / "linked")
    os.symlink(root, root / "near" / "circle")
    os.symlink(tmp_path / "gone", root / "near" / "gone.jpg")
    found = read_image_folder(root, "auto")
    assert {name: len(files) for name, files in found.classes.items()} == {"linked": 4, "near": 5}


def test_a_link_to_nothing_is_an_unreadable_image(root, capsys, tmp_path):
    put(root, *"abcdef")
    os.symlink(tmp_path / "gone", root / "a" / "gone.jpg")
    assert load(root, ways=1).about["unreadable"] == 1
    assert "a/gone.jpg ([Errno 2] No such file" in capsys.readouterr().err


@pytest.mark.parametrize(("folders", "count"), [([""], 20), (["train", "test"], 12), (["val"], 20)])
def test_too_few_classes_in_a_random_split_name_fractions_that_give_enough(root, folders, count):
    """20 classes by 0.64, 0.16, 0.2 have 3 of validation, too few for 5 ways."""
    for number, name in enumerate(folders):
        put(root / name, *(f"{number}-{i}" for i in range(count)), images=3)
    with pytest.raises(Error, match=r"data\.ways = 5: split val, made at random, has \d of \d+ classes") as error:
        load(root, ways=5)
    (cure,) = re.findall(r"; give data\.fractions=\[([\d.,]+)\]$", str(error.value))
    fractions = tuple(map(float, cure.split(",")))
    assert sum(fractions) == pytest.approx(1)
    assert min(load(root, ways=5, fractions=fractions).about["classes"].values()) >= 5


def test_a_class_whose_name_is_not_utf8_is_kept_in_its_split(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [os.fsdecode(b"caf\xe9"), "a", "b", "c"]
    fractions = {"train": 0.5, "val": 0.25, "test": 0.25}
    classes, file = stored_split(tmp_path, names, fractions, 0)
    assert file.exists()
    assert stored_split(tmp_path, names, fractions, 0) == (classes, file)
    assert sorted(name for part in classes.values() for name in part) == sorted(names)
