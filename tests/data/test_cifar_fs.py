"""CIFAR-FS: small sets of the same layouts for what can go wrong, the real sample where $FMAML_DATA has it."""

import hashlib
import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import fmaml.data.sources.cifar_fs as module
from fmaml.data.dataset_facts import HUNDRED_CLASSES, class_names
from fmaml.data.files import find
from fmaml.data.images import cifar100_files
from fmaml.data.preprocessing import Form
from fmaml.data.sources.cifar_fs import cifar_fs
from fmaml.errors import Error

CPU = torch.device("cpu")
NAMES = {"train": ["apple", "bear"], "val": ["crab", "dolphin"], "test": ["elm", "fox"]}
EVERYONE = sorted(name for names in NAMES.values() for name in names)
TRAIN, TEST = 5, 2  # images of a class in each of CIFAR-100's parts


def picture(name: str, number: int) -> np.ndarray:
    """Uint8 [3, 32, 32]: red tells the class, green the row, blue the number."""
    rows = np.arange(32, dtype=np.uint8)[:, None].repeat(32, 1)
    return np.stack([np.full_like(rows, 20 * EVERYONE.index(name)), rows, np.full_like(rows, 9 * number)])


def put_folders(root):
    for name in EVERYONE:
        (root / "data" / name).mkdir(parents=True)
        for i in range(TRAIN + TEST):
            Image.fromarray(picture(name, i).transpose(1, 2, 0)).save(root / "data" / name / f"{name}_{i}.png")
    return root


def put_split_folders(root):
    put_folders(root)
    for split, names in NAMES.items():
        for name in names:
            shutil.move(root / "data" / name, root / split / name)
    (root / "data").rmdir()
    return root


def parts(monkeypatch) -> dict[str, bytes]:
    """CIFAR-100's three files, their images in a mixed order."""
    content = {"meta": pickle.dumps({"fine_label_names": EVERYONE, "coarse_label_names": []}, 2)}
    for part, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        rows = [(name, i) for i in numbers for name in EVERYONE]  # class after class, over and over
        pixels = np.stack([picture(name, i).reshape(-1) for name, i in rows])
        labels = [EVERYONE.index(name) for name, _ in rows]
        content[part] = pickle.dumps({"data": pixels, "fine_labels": labels, "filenames": ["x"] * len(rows)}, 2)
    for name, data in content.items():
        monkeypatch.setitem(cifar100_files.CIFAR100_MD5, name, hashlib.md5(data).hexdigest())
    return content


def put_unpacked(root, content):
    (root / "cifar-100-python").mkdir(parents=True)
    for name, data in content.items():
        (root / "cifar-100-python" / name).write_bytes(data)
    return root


def put_archive(root, content):
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return root


def put_published(root, content, monkeypatch):
    """The archive, which becomes CIFAR-100's."""
    archive = put_archive(root, content) / cifar100_files.CIFAR100_ARCHIVE
    monkeypatch.setitem(cifar100_files.CIFAR100_MD5, archive.name, hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Six classes make the whole of CIFAR-FS; caches and homes are empty."""
    monkeypatch.setattr(module, "class_names", lambda data, split: NAMES[split])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FMAML_DATA", raising=False)
    monkeypatch.setattr(find, "download", lambda *_, **__: pytest.fail("downloads"))
    return tmp_path


def load(root):
    return cifar_fs(seed=0, device=CPU, root=str(root), ways=2, queries=6)


LAYOUTS = {
    "data": lambda root, _: put_folders(root),
    "split folders": lambda root, _: put_split_folders(root),
    "unpacked": lambda root, patch: put_unpacked(root, parts(patch)),
    "archive": lambda root, patch: put_published(root, parts(patch), patch),
}


def test_images_are_resized_like_those_of_pillow(small):
    put_folders(small)
    source = cifar_fs(seed=0, device=CPU, root=str(small), ways=2, queries=6, size=48)
    assert source.inputs == (3, 48, 48)
    assert source.form == Form(48, 3, "squeeze")
    assert source.about["protocol"].endswith("images of 32x32x3 as 48x48x3")
    own, found = (s.sample("test", 0, range(1)).support.x[0] for s in (load(small), source))
    for before, after in zip(own, found, strict=True):
        image = Image.fromarray((before * 255).round().byte().permute(1, 2, 0).numpy())
        expected = np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
        assert np.abs(after.numpy() - expected).max() < 1.01 / 255
    assert cifar_fs(seed=0, device=CPU, root=str(small), ways=2, queries=6, size=32).inputs == (3, 32, 32)


@pytest.mark.parametrize("place", ["", "cifar-fs", "cifar-100"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_tasks(small, monkeypatch, layout, place):
    LAYOUTS[layout](small / "root" / place, monkeypatch)
    source = load(small / "root")
    assert source.inputs == (3, 32, 32)
    assert source.about["classes"] == {"train": 2, "val": 2, "test": 2}
    assert "Bertinetto et al.'s 64/16/20, a sample with 7 of 600 images a class" in source.about["protocol"]
    for split, names in NAMES.items():
        task = source.sample(split, 0, range(3))
        x, y = torch.cat([task.support.x, task.query.x], 1), torch.cat([task.support.y, task.query.y], 1)
        pixels = (255 * x).round().long()
        assert (pixels[:, :, 1, :, 0] == torch.arange(32)).all()
        assert {EVERYONE[red // 20] for red in pixels[:, :, 0, 0, 0].flatten().tolist()} == set(names)
        for way in range(2):
            mine = pixels[0][y[0] == way]
            assert len(mine[:, 0].unique()) == 1
            assert sorted(mine[:, 2, 0, 0].tolist()) == [9 * i for i in range(TRAIN + TEST)]
    other = load(put_folders(small / "again"))
    assert torch.equal(source.sample("test", 1, range(3)).query.x, other.sample("test", 1, range(3)).query.x)


def test_the_unpacked_folder_itself_may_be_the_root(small, monkeypatch):
    put_unpacked(small / "root", parts(monkeypatch))
    assert load(small / "root" / "cifar-100-python").about["classes"]["train"] == 2


def test_a_changed_file_is_refused_before_it_is_unpickled(small, monkeypatch):
    content = parts(monkeypatch)
    content["test"] = content["test"][:-9] + b"other....".ljust(9)
    with pytest.raises(Error, match=r"python/test: its MD5 is \w+, but CIFAR-100's test has \w+; copy or download"):
        load(put_unpacked(small / "root", content))


def test_another_archive_is_refused_before_it_is_opened(small, monkeypatch):
    archive = put_published(small / "root", parts(monkeypatch), monkeypatch)
    monkeypatch.setattr(cifar100_files.tarfile, "open", lambda **_: pytest.fail("opened"))
    whole = archive.read_bytes()
    for bad in (b"", b"<html>", whole[: len(whole) // 2], whole[:100] + bytes(60) + whole[160:], whole + b"x"):
        archive.write_bytes(bad)
        with pytest.raises(Error, match=r"tar\.gz: its MD5 is \w+, .*\w+; copy or download it again from https"):
            load(small / "root")


def test_a_class_that_is_gone_is_named(small):
    root = put_folders(small / "root")
    shutil.rmtree(root / "data" / "elm")
    with pytest.raises(Error, match=r"split test lacks elm; CIFAR-FS has 2 fixed classes there"):
        load(root)


def test_other_classes_are_refused(small):
    root = put_split_folders(small / "root")
    (root / "val" / "crab").rename(root / "val" / "crabs")
    with pytest.raises(Error, match=r"split val has crabs and lacks crab; CIFAR-FS has 2 fixed classes"):
        load(root)


def test_what_is_missing_is_downloaded_once(small, monkeypatch):
    origin = put_published(small / "origin", parts(monkeypatch), monkeypatch)
    asked = []

    def fetch(url, path, md5, *, cure):
        if not path.exists():
            asked.append((url, md5))
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, path)

    monkeypatch.setattr(find, "download", fetch)
    for _ in range(2):
        cifar_fs(seed=0, device=CPU, ways=2, queries=6)
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert asked == [(url, "eb9058c3a382ffc7106e4002c42a8d85")]


def test_without_a_download_missing_data_is_an_error(small):
    with pytest.raises(Error, match=r"data\.root is not set: no CIFAR-FS in .*expected data/"):
        cifar_fs(seed=0, device=CPU, download=False)


def test_the_split_is_64_16_20_disjoint_classes():
    names = {split: class_names("cifar_fs", split) for split in HUNDRED_CLASSES}
    assert {split: len(part) for split, part in names.items()} == HUNDRED_CLASSES
    assert len({name for part in names.values() for name in part}) == 100
    assert all(part == sorted(part) for part in names.values())


real = pytest.mark.real_data("cifar-fs")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cifar_fs(seed=0, device=CPU, download=False)


@real
def test_the_real_images(source):
    assert source.about["classes"] == HUNDRED_CLASSES
    task = source.sample("train", 0, range(40))
    assert task.query.x.shape == (40, 75, 3, 32, 32)
    assert task.query.x.flatten(3).std(3).min() > 0.005  # no image is empty
    mean = task.query.x.mean((0, 1, 3, 4))
    torch.testing.assert_close(mean, torch.tensor([0.507, 0.487, 0.441]), atol=0.03, rtol=0)  # CIFAR-100's


@real
def test_the_lists_beside_the_real_images_are_ours(real_data):
    folder = real_data / "cifar-fs/splits/bertinetto"
    for split in HUNDRED_CLASSES:
        if (folder / f"{split}.txt").exists():
            assert sorted((folder / f"{split}.txt").read_text().split()) == class_names("cifar_fs", split)
