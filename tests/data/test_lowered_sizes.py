"""`data.lower_sizes`: sizes of tasks that follow the user's classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fmaml.data.sources.image_folder import folder
from fmaml.errors import Error

ASKED = {"ways": 5, "train_ways": 10, "shots": 5, "queries": 5, "fractions": (0.5, 0.25, 0.25)}


def source(folder_of_classes: Path, *sizes: int, **more):
    for number, size in enumerate(sizes):
        (folder_of_classes / f"class{number:02d}").mkdir(parents=True)
        for i in range(size):
            Image.new("RGB", (8, 8), (5 * number, i, 0)).save(folder_of_classes / f"class{number:02d}" / f"{i}.png")
    settings = {**ASKED, "size": 8, "lower_sizes": True, "root": str(folder_of_classes)} | more
    return folder(seed=0, device=torch.device("cpu"), **settings)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("sizes", "counts", "protocol", "train_ways"),
    [
        ([10] * 40, {"train": 20, "val": 10, "test": 10}, "5-way 5-shot, 5 queries", 10),  # as asked
        ([10] * 8, {"train": 4, "val": 2, "test": 2}, "2-way 5-shot, 5 queries", 4),
        ([7] * 8, {"train": 4, "val": 2, "test": 2}, "2-way 3-shot, 4 queries", 4),
        ([3] * 12, {"train": 6, "val": 3, "test": 3}, "3-way 1-shot, 2 queries", 6),
        ([10] * 6, {"train": 2, "val": 2, "test": 2}, "2-way 5-shot, 5 queries", 2),
    ],
)
def test_sizes_follow_the_classes(tmp_path, sizes, counts, protocol, train_ways, capsys):
    found = source(tmp_path / "set", *sizes)
    assert found.about["classes"] == counts
    assert found.about["protocol"].startswith(protocol)
    assert found.sample("train", 0, range(1)).support.y.max() == train_ways - 1
    assert f"{train_ways} ways in training" in capsys.readouterr().err


def test_small_fractions_leave_two_classes_to_validation_and_test(tmp_path):
    found = source(tmp_path / "set", *[10] * 8, fractions=(0.8, 0.1, 0.1))
    assert found.about["classes"] == {"train": 4, "val": 2, "test": 2}


def test_small_classes_are_left_out_and_counted(tmp_path, capsys):
    found = source(tmp_path / "set", *[10] * 20, 1, 2, 9)
    assert sum(found.about["classes"].values()) == 20
    assert "classes of fewer than 10 pictures left out: 3, such as class20" in capsys.readouterr().err


def test_a_long_tail_of_single_pictures_is_left_out(tmp_path, capsys):
    found = source(tmp_path / "set", *[10] * 15, *[1] * 30)
    assert sum(found.about["classes"].values()) == 15
    assert "left out: 30" in capsys.readouterr().err


def test_four_classes_share_validation_and_test(tmp_path, capsys):
    found = source(tmp_path / "set", *[6] * 4)
    assert found.about["classes"] == {"train": 2, "val": 2, "test": 2}
    assert len(found.about["shared_classes"]) == 2
    assert "4 classes: two of them serve both validation and test" in capsys.readouterr().err


def test_fewer_than_four_classes_need_no_training(tmp_path):
    with pytest.raises(Error, match=r"3 of 4 classes.*fmaml adapt photographs --support .*set --out FILE"):
        source(tmp_path / "set", 10, 10, 10)
    with pytest.raises(Error, match="every class has one picture"):
        source(tmp_path / "few", *[1] * 9)


def test_splits_of_ones_own_are_kept(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 4)):
        for number in range(count):
            (tmp_path / "set" / split / f"{split}{number}").mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8)).save(tmp_path / "set" / split / f"{split}{number}" / f"{i}.png")
    found = source(tmp_path / "set")
    assert found.about["classes"] == {"train": 6, "val": 3, "test": 4}
    assert found.about["protocol"].startswith("3-way 5-shot")


def test_a_folder_of_training_classes_alone_is_divided(tmp_path):
    found = source(tmp_path / "set" / "train", *[10] * 8, 1, root=str(tmp_path / "set"))  # one is too small
    assert found.about["classes"] == {"train": 4, "val": 2, "test": 2}


def test_sizes_follow_the_pictures_where_the_splits_are_given(tmp_path, capsys):
    for split, classes in {"train": 4, "val": 2, "test": 3}.items():
        for number in range(classes):
            (tmp_path / "set" / split / f"{split}{number}").mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (number, i, 0)).save(
                    tmp_path / "set" / split / f"{split}{number}" / f"{i}.png"
                )
    found = source(tmp_path / "set")
    assert found.about["classes"] == {"train": 4, "val": 2, "test": 3}
    assert "tasks: 2-way 2-shot, 2 queries a class; 4 ways in training" in capsys.readouterr().err
