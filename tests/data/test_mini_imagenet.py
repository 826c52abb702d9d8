"""Mini-ImageNet: small sets of the same layouts for what can go wrong, the real sample where $FMAML_DATA has it."""

import os
import pickle
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fmaml.data.sources.mini_imagenet as module
from fmaml.data.dataset_facts import HUNDRED_CLASSES, class_names
from fmaml.data.images import image_cache
from fmaml.data.sources.mini_imagenet import mini_imagenet
from fmaml.errors import Error

CPU = torch.device("cpu")
NAMES = {"train": ["n01", "n02", "n03"], "val": ["n04", "n05"], "test": ["n06", "n07"]}
EACH = 4


def picture(name: str, number: int) -> np.ndarray:
    """Uint8 [84, 84, 3]: red tells the class, green the number."""
    return np.full((84, 84, 3), (30 * int(name[1:]), 20 * number, 0), np.uint8)


def rows(split):
    return [(name, i, f"{name}0000{i}.png") for name in NAMES[split] for i in range(EACH)]


def save(path, name, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(name, number)).save(path)


def put_tables(root, header="filename,label", val="val"):
    for split in NAMES:
        lines = [header]
        for name, i, file in rows(split):
            save(root / "images" / file, name, i)
            lines.append(f"{file},{name}" if header.startswith(("file", "image")) else f"{name},{file}")
        (root / f"{val if split == 'val' else split}.csv").write_text("\n".join(lines) + "\n")
    return root


def put_other_tables(root):
    """The other header, and a folder a class."""
    put_tables(root, "class_name,image_name", "validation")
    for split in NAMES:
        for name, _, file in rows(split):
            (root / "images" / name).mkdir(exist_ok=True)
            shutil.move(root / "images" / file, root / "images" / name / file)
    return root


def put_folders(root):
    for split in NAMES:
        for name, i, file in rows(split):
            save(root / split / name / file, name, i)
    return root


def put_pickles(root, val="val", protocol=2):
    root.mkdir(parents=True, exist_ok=True)
    for split in NAMES:
        images = np.stack([picture(name, i) for name, i, _ in reversed(rows(split))])
        last = len(images) - 1
        where = {name: [last - (k * EACH + i) for i in range(EACH)] for k, name in enumerate(NAMES[split])}
        word = val if split == "val" else split
        content = pickle.dumps({"image_data": images, "class_dict": where}, protocol)
        (root / f"mini-imagenet-cache-{word}.pkl").write_bytes(content)
    return root


LAYOUTS = {
    "tables": put_tables,
    "other tables": put_other_tables,
    "folders": put_folders,
    "pickles": put_pickles,
    "validation": lambda root: put_pickles(root, "validation", 5),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Seven classes make the whole of mini-ImageNet; caches and homes are empty."""
    monkeypatch.setattr(module, "class_names", lambda data, split: NAMES[split])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FMAML_DATA", raising=False)
    return tmp_path


def load(root, **more: Any):
    settings: dict[str, Any] = {"ways": 2, "queries": 3}
    return mini_imagenet(seed=0, device=CPU, root=str(root), **settings | more)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tasks(small, layout):
    source = load(LAYOUTS[layout](small / "root" / "mini-imagenet").parent)
    assert source.inputs == (3, 84, 84)
    assert source.about["classes"] == {"train": 3, "val": 2, "test": 2}
    assert "Ravi and Larochelle's 64/16/20, a sample with 4 of 600 images a class" in source.about["protocol"]
    for split, names in NAMES.items():
        task = source.sample(split, 0, range(6))
        x, y = torch.cat([task.support.x, task.query.x], 1), torch.cat([task.support.y, task.query.y], 1)
        assert (x.flatten(3).std(3) == 0).all()  # every image is of one colour, as they were made
        red, green = ((255 * x[:, :, c, 0, 0]).round().long() for c in (0, 1))
        for way in range(2):
            assert len({*red[0][y[0] == way].tolist()}) == 1
            assert sorted(green[0][y[0] == way].tolist()) == [0, 20, 40, 60]
        assert set(red.flatten().tolist()) == {30 * int(name[1:]) for name in names}
    other = load(put_tables(small / "again"))
    assert torch.equal(source.sample("train", 1, range(3)).query.x, other.sample("train", 1, range(3)).query.x)


def edit(root, name, change):
    (root / name).write_text(change((root / name).read_text()))


TABLES_WRONG = {
    "a missing file": (
        lambda root: (root / "images" / "n0400002.png").unlink(),
        r"val\.csv, line 4, column filename: 'n0400002\.png': not in .*images; .* remove the line",
    ),
    "another header": (
        lambda root: edit(root, "train.csv", lambda text: text.replace("filename", "picture")),
        r"train\.csv, line 1: picture,label; name the column by data\.file_column",
    ),
    "an empty table": (lambda root: (root / "test.csv").write_text(""), r"test\.csv, line 1: fewer than two columns"),
    "a short line": (
        lambda root: edit(root, "test.csv", lambda text: text + "alone\n"),
        r"test\.csv, line 10: 1 cells, but the header has 2",
    ),
    "another class": (
        lambda root: edit(root, "val.csv", lambda text: text.replace(",n05", ",n99")),
        r"split val has n99 and lacks n05; mini-ImageNet has 2 fixed classes there\. .*data\.name=folder",
    ),
    "a class of another split": (
        lambda root: edit(root, "test.csv", lambda text: text + "n0100000.png,n01\n"),
        r"split test has n01; ",
    ),
    "a text": (
        lambda root: (root / "images" / "n0100001.png").write_text("text"),
        r"1 unreadable image: .*n0100001\.png \(cannot identify.*copy or download",
    ),
    "bytes that are no text": (
        lambda root: (root / "test.csv").write_bytes(b"\xff\xfe\x00"),
        r"test\.csv, line 1: not UTF-8",
    ),
}


@pytest.mark.parametrize("fault", TABLES_WRONG)
def test_a_faulty_set_is_one_message(small, fault):
    break_it, message = TABLES_WRONG[fault]
    root = put_tables(small / "root")
    break_it(root)
    with pytest.raises(Error, match=message):
        load(root)
    assert len(list((small / "cache").rglob("*.safetensors"))) == (fault == "a text")  # the sound ones are kept


def test_too_few_images_in_a_class_is_named(small):
    root = put_tables(small / "root")
    edit(root, "val.csv", lambda text: "\n".join(line for line in text.splitlines() if "n0500003" not in line))
    with pytest.raises(Error, match=r"= 4: class n05 of split val has 3 examples.*give shots \+ queries of at most 3"):
        load(root)


PICKLES_WRONG = {
    "no dict": [1, 2],
    "no pixels": {"class_dict": {"n04": [0]}},
    "floats": {"image_data": np.zeros((8, 84, 84, 3)), "class_dict": {"n04": [0], "n05": [1]}},
    "another size": {"image_data": np.zeros((8, 32, 32, 3), np.uint8), "class_dict": {"n04": [0], "n05": [1]}},
    "a row too far": {"image_data": np.zeros((8, 84, 84, 3), np.uint8), "class_dict": {"n04": [0], "n05": [8]}},
    "a row below 0": {"image_data": np.zeros((8, 84, 84, 3), np.uint8), "class_dict": {"n04": [0], "n05": [-1]}},
    "no rows": {"image_data": np.zeros((8, 84, 84, 3), np.uint8), "class_dict": {"n04": [0], "n05": []}},
    "too many rows": {"image_data": np.zeros((2, 84, 84, 3), np.uint8), "class_dict": {"n04": [0, 1], "n05": [1]}},
    "ragged rows": {"image_data": np.zeros((8, 84, 84, 3), np.uint8), "class_dict": {"n04": [[0], [1, 2]]}},
}


@pytest.mark.parametrize("fault", PICKLES_WRONG)
def test_a_pickle_of_something_else_is_one_message(small, fault):
    root = put_pickles(small / "root")
    (root / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(PICKLES_WRONG[fault], 4))
    with pytest.raises(
        Error, match=r"mini-imagenet-cache-val\.pkl: not a cache of mini-ImageNet, a dict of image_data"
    ):
        load(root)


def test_a_pickle_of_other_classes_is_refused(small):
    root = put_pickles(small / "root")
    shutil.copy(root / "mini-imagenet-cache-train.pkl", root / "mini-imagenet-cache-test.pkl")
    with pytest.raises(Error, match=r"cache-test\.pkl: split test has n01, n02, n03 and lacks n06, n07"):
        load(root)


def test_missing_data_is_an_error_that_says_what_is_expected(small):
    with pytest.raises(Error, match=r"data\.root = .*no mini-ImageNet in .*expected images/ with train\.csv"):
        load(small / "nowhere")


def test_the_second_opening_reads_no_image_and_other_files_are_read_anew(small, monkeypatch):
    root = put_tables(small / "root")
    first = load(root).sample("train", 0, range(4))
    with monkeypatch.context() as patched:
        patched.setattr(image_cache, "decode_images", lambda *_: pytest.fail("reads again"))
        assert torch.equal(load(root).sample("train", 0, range(4)).query.x, first.query.x)
    save(root / "images" / "n0100000.png", "n08", 11)
    os.utime(root / "images" / "n0100000.png", ns=(1, 1))
    read: list[str] = []
    with monkeypatch.context() as patched:
        decode = image_cache.decode_images
        patched.setattr(image_cache, "decode_images", lambda files, form: read.extend(files) or decode(files, form))
        load(root)
    assert read == [str(root / "images" / "n0100000.png")]
    assert len(list((small / "cache").rglob("*.safetensors"))) == 1


def test_the_split_is_64_16_20_disjoint_classes():
    names = {split: class_names("mini_imagenet", split) for split in HUNDRED_CLASSES}
    assert {split: len(part) for split, part in names.items()} == HUNDRED_CLASSES
    assert len({name for part in names.values() for name in part}) == 100
    assert all(part == sorted(part) for part in names.values())
    assert all(len(name) == 9 and name[0] == "n" for part in names.values() for name in part)


# ---- the real sample

real = pytest.mark.real_data("mini-imagenet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def source(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return mini_imagenet(seed=0, device=CPU)


@real
def test_the_real_images(source):
    assert source.about["classes"] == HUNDRED_CLASSES
    task = source.sample("test", 0, range(8))
    assert task.query.x.shape == (8, 75, 3, 84, 84)
    assert task.query.x.flatten(3).std(3).min() > 0.005  # no image is empty
    mean = task.query.x.mean((0, 1, 3, 4))
    torch.testing.assert_close(mean, torch.tensor([0.47, 0.45, 0.40]), atol=0.05, rtol=0)  # as published for ImageNet


@real
def test_the_real_images_are_those_of_the_files(source, real_data):
    if "with 24 of 600" not in source.about["split"]:
        pytest.skip("for the sample of 24 images a class")
    root = real_data / "mini-imagenet"
    lines = [line.split(",") for line in (root / "val.csv").read_text().split()[1:]]
    file = next(file for file, label in lines if label == class_names("mini_imagenet", "val")[0])
    expected = torch.from_numpy(np.asarray(Image.open(root / "images" / file)).transpose(2, 0, 1).copy())
    everything = mini_imagenet(seed=0, device=CPU, ways=16, queries=23)  # in one task, if 24 images a class are there
    pool = everything.sample("val", 0, range(1))
    found = (255 * torch.cat([pool.support.x, pool.query.x], 1).flatten(0, 1)).round().to(torch.uint8)
    assert (found == expected).flatten(1).all(1).any()


@real
def test_it_opens_fast_from_its_cache(source):
    start = time.process_time()
    again = mini_imagenet(seed=0, device=CPU)
    assert time.process_time() - start < 2
    assert torch.equal(again.sample("val", 3, range(2)).query.x, source.sample("val", 3, range(2)).query.x)
