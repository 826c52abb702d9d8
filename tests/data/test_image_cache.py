"""Images of a root are decoded once for each size, whoever asks."""

import os
import shutil
from functools import partial
from pathlib import Path

import children
import pytest
import torch
from PIL import Image

from fmaml.data.images import image_cache
from fmaml.data.images.image_cache import decoded_images
from fmaml.data.preprocessing import Form
from fmaml.data.sources.image_folder import folder
from fmaml.files.cache_folder import writing

FORM = Form(8, 1)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "abcdefghi":
        for i in range(3):
            put(tmp_path / "set" / name / f"{i}.png", 20 * "abcdefghi".index(name) + i)
    return tmp_path / "set"


def put(file: Path, level: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (9, 9), level).save(file)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are decoded, as they are."""
    names: list[str] = []
    decode = image_cache.decode_images

    def noting(files, form):
        names.extend("/".join(Path(file).parts[-2:]) for file in files)
        return decode(files, form)

    monkeypatch.setattr(image_cache, "decode_images", noting)
    return names


def files_of(root):
    return sorted(str(path) for path in root.rglob("*.png"))


def levels(found):
    images, _ = found
    return images[:, 0, 0, 0].tolist()


def kept(root):
    return list((root.parent / "cache" / "fmaml").glob("*.safetensors"))


def test_any_choice_in_any_order_is_read_from_what_is_kept(root, read):
    files = files_of(root)
    whole = levels(decoded_images("set", root, files, FORM))
    assert len(read) == 27
    for chosen in (files[::-1], files[5:9], files[::4] + files[1::4]):
        assert levels(decoded_images("set", root, chosen, FORM)) == [whole[files.index(file)] for file in chosen]
    assert len(read) == 27
    assert len(kept(root)) == 1


def test_only_what_is_new_or_changed_is_decoded_and_what_is_gone_is_dropped(root, read):
    files = files_of(root)
    decoded_images("set", root, files, FORM)
    del read[:]
    put(root / "b" / "0.png", 250)
    os.utime(root / "b" / "0.png", ns=(1, 1))
    put(root / "new" / "0.png", 251)
    shutil.rmtree(root / "c")
    files = files_of(root)
    found = decoded_images("set", root, files, FORM)
    assert read == ["b/0.png", "new/0.png"]
    assert levels(found) == levels(decoded_images("other", root, files, FORM))
    (path,) = (path for path in kept(root) if path.name.startswith("set-"))
    assert sorted(image_cache._read(path, root, FORM).stamps) == files


def test_unreadable_files_are_named_each_time_and_tried_again(root, read):
    (root / "a" / "1.png").write_text("a text")
    files = files_of(root)
    first = decoded_images("set", root, files, FORM)
    for found in (first, decoded_images("set", root, files, FORM)):
        images, errors = found
        assert [*errors] == [files[1]]
        assert "cannot identify" in errors[files[1]]
        assert len(images) == 26
        assert levels(found)[:2] == [0, 2]
    put(root / "a" / "1.png", 77)
    assert levels(decoded_images("set", root, files, FORM))[:3] == [0, 77, 2]
    assert read.count("a/1.png") == 3
    assert read.count("a/2.png") == 1


def test_each_form_has_a_file_and_a_root_by_another_name_has_the_same(root, read, monkeypatch):
    files = files_of(root)
    for form in (FORM, FORM._replace(size=9), FORM._replace(invert=True)):
        decoded_images("set", root, files, form)
    assert len(kept(root)) == 3
    monkeypatch.chdir(root.parent)
    decoded_images("set", Path("set"), [os.path.relpath(file) for file in files], FORM)
    assert len(read) == 81


def settings(root, **more):
    sizes = {"size": 8, "channels": 1, "ways": 1, "shots": 1, "queries": 2}
    return {"seed": 0, "device": torch.device("cpu"), "root": str(root), **sizes, **more}


def test_experiments_splits_layouts_and_tables_share_what_is_decoded(root, read):
    folder(**settings(root))
    assert len(read) == 27
    folder(**settings(root, split_seed=5, strict=True, ways=2, fractions=(0.4, 0.3, 0.3), layout="classes"))
    rows = [f"{os.path.relpath(file, root)},{Path(file).parent.name}" for file in files_of(root)]
    (root / "labels.csv").write_text("\n".join(["file,label", *rows]))
    folder(**settings(root / "labels.csv"))
    assert len(read) == 27


def test_a_damaged_file_is_made_again(root, read):
    files = files_of(root)
    whole = levels(decoded_images("set", root, files, FORM))
    (path,) = kept(root)
    content = path.read_bytes()
    for at in range(8, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert levels(decoded_images("set", root, files, FORM)) == whole


def decode_part(root: Path, part: slice) -> bool:
    """In a child: print how many files are decoded, and return whether one of the part's is missing."""
    decode = image_cache.decode_images
    image_cache.decode_images = lambda files, form: print(len(files)) or decode(files, form)
    files = sorted(str(path) for path in root.rglob("*.png"))[part]
    return len(decoded_images("set", root, files, FORM)[0]) != len(files)


def test_processes_at_once_decode_each_file_once_between_them_and_lose_nothing(root, tmp_path):
    """One has the first half, one the second, one everything."""
    with (tmp_path / "counts").open("a") as said:
        parts = (slice(14), slice(14, 27), slice(27))
        running = [children.start(partial(decode_part, root, part), said.fileno()) for part in parts]
        assert [child.wait(children.PATIENCE) for child in running] == [0, 0, 0]
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert sum(counts) == 27
    (path,) = kept(root)
    assert len(image_cache._read(path, root, FORM).stamps) == 27


def test_a_dry_run_reads_what_is_kept_and_keeps_nothing(root, read):
    with writing(False):
        decoded_images("set", root, files_of(root), FORM)
        assert not (root.parent / "cache").exists()
    decoded_images("set", root, files_of(root), FORM)
    (path,) = kept(root)
    os.utime(path, (1000, 1000))
    with writing(False):
        decoded_images("set", root, files_of(root), FORM)
    assert len(read) == 54
    assert path.stat().st_mtime == 1000
