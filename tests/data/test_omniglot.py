"""Omniglot: small sets of the same layout for what can go wrong, the real one where $FMAML_DATA has it."""

import io
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import fmaml.data.sources.omniglot as module
from fmaml.data.class_examples import equal_classes, sample_episodes
from fmaml.data.dataset_facts import DRAWINGS_PER_CLASS, OMNIGLOT_CLASSES, class_names
from fmaml.data.files import find
from fmaml.data.images import omniglot_files
from fmaml.data.source import task_keys
from fmaml.data.sources.omniglot import omniglot
from fmaml.errors import Error

CPU = torch.device("cpu")
NAMES = {
    "train": ["images_background/Greek/character02", "images_evaluation/Atlantean/character01"],
    "val": ["images_background/Greek/character01"],
    "test": ["images_background/Latin/character01"],
}
EVERYONE = [name for names in NAMES.values() for name in names]


def drawing(character: int, number: int) -> bytes:
    """Black strokes on white, 105x105, 1 bit: a bar for the character and a bar for the drawing's number."""
    image = Image.new("1", (105, 105), 1)
    draw = ImageDraw.Draw(image)
    draw.rectangle((10 * character, 0, 10 * character + 7, 50), fill=0)
    draw.rectangle((5 * number, 60, 5 * number + 3, 100), fill=0)
    image.save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def members() -> dict[str, bytes]:
    return {
        f"{name}/{character:04}_{number + 1:02}.png": drawing(character, number)
        for character, name in enumerate(EVERYONE)
        for number in range(DRAWINGS_PER_CLASS)
    }


def put_folders(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def put_zips(folder: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in omniglot_files.OMNIGLOT_PARTS:
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                if name.startswith(part) or not name.startswith("images_"):
                    archive.writestr(prefix + name, content)
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Four characters make the whole of Omniglot; caches and homes are empty."""
    monkeypatch.setattr(module, "class_names", lambda data, split: NAMES[split])
    monkeypatch.setattr(module, "OMNIGLOT_CLASSES", {split: len(names) for split, names in NAMES.items()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FMAML_DATA", raising=False)
    monkeypatch.setattr(find, "download", lambda *_, **__: pytest.fail("downloads"))
    return tmp_path


def load(root, **more):
    # One class has no two ways: the check of ways is for `episodes`.
    return omniglot(seed=0, device=CPU, root=str(root), rotate=("train", "val", "test"), ways=2, **more)


def images(root):
    return omniglot_files.read_drawings(found(root), EVERYONE)


def found(root):
    parts = omniglot_files.find_omniglot(Path(root))
    assert parts is not None
    return parts


# ---- layouts


@pytest.mark.parametrize("layout", ["", "omniglot", "omniglot-py"])
@pytest.mark.parametrize("put", [put_zips, put_folders])
def test_zips_and_folders_where_users_have_them(small, put, layout):
    put(small / "root" / layout, members())
    source = load(small / "root")
    assert source.inputs == (1, 28, 28)
    assert source.outputs == 2
    assert source.about["classes"] == {"train": 8, "val": 4, "test": 4}
    assert source.about["data"] == "omniglot"
    assert all(str(small / "root" / layout) in file for file in source.about["files"])


def test_a_folder_a_zip_and_a_zip_with_more_around_it_are_the_same_drawings(small):
    junk = {"__MACOSX/images_background/._x.png": b"junk", "README.md": b"text"}
    expected = images(put_folders(small / "folders", members()))
    assert torch.equal(images(put_zips(small / "zips", {**members(), **junk})), expected)
    assert torch.equal(images(put_zips(small / "deep", members(), "omniglot-master/python/")), expected)


def test_characters_and_drawings_are_in_order_and_ink_is_255(small):
    read = images(put_zips(small / "root", members()))
    assert read.shape == (4, DRAWINGS_PER_CLASS, 1, 28, 28)
    assert read.dtype == torch.uint8
    for character in range(4):
        for number in range(DRAWINGS_PER_CLASS):
            pixels = read[character, number, 0]
            bar = (10 * character + 3.5) * 28 / 105, (5 * number + 1.5) * 28 / 105
            assert abs(pixels[:12].sum(0).argmax() - bar[0]) <= 1
            assert abs(pixels[17:26].sum(0).argmax() - bar[1]) <= 1
    assert read[0, 0, 0, 5, 0] == 255
    assert read[..., 14:15, :].float().mean() < 20  # between the bars: paper


def test_lines_are_averaged_and_not_dropped(small):
    """A line one pixel wide survives the reduction as grey."""
    files = members()
    image = Image.new("1", (105, 105), 1)
    ImageDraw.Draw(image).line((0, 52, 104, 52), fill=0)
    image.save(file := io.BytesIO(), format="PNG")
    files[f"{EVERYONE[0]}/0000_01.png"] = file.getvalue()
    row = images(put_zips(small / "root", files))[0, 0, 0].float().sum(0)
    assert row.min() > 40
    assert row.max() < 100


def test_zips_go_before_folders(small):
    put_zips(small / "root", members())
    put_folders(small / "root", {next(iter(members())): b"left of an unpacking that was cut short"})
    assert [part.suffix for part in found(small / "root")] == [".zip", ".zip"]


# ---- what is refused


def without(key, files):
    return {name: content for name, content in files.items() if not name.startswith(key)}


FAULTY = {
    "a drawing too few": (
        lambda files: without(f"{EVERYONE[1]}/0001_07", files),
        r"images_evaluation/Atlantean/character01 has 19 drawings; expected 4 characters of 20 drawings each",
    ),
    "a drawing too many": (
        lambda files: {**files, f"{EVERYONE[0]}/extra.png": drawing(0, 0)},
        r"Greek/character02 has 21 drawings",
    ),
    "a character too few": (lambda files: without(EVERYONE[3], files), r"Latin/character01 has 0 drawings"),
    "a character too many": (
        lambda files: {**files, "images_background/Latin/character99/1_01.png": drawing(0, 0)},
        r"Latin/character99 has 1 drawings",
    ),
    "an alphabet is gone": (
        lambda files: without("images_background/Greek", files),
        r"Greek/character01 has 0 drawings, images_background/Greek/character02 has 0",
    ),
    "not an image": (
        lambda files: {**files, f"{EVERYONE[0]}/0000_03.png": b"<html>"},
        r"0000_03\.png: not a drawing of Omniglot",
    ),
    "an image cut short": (
        lambda files: {**files, f"{EVERYONE[0]}/0000_03.png": drawing(0, 2)[:-40]},
        r"0000_03\.png: not a drawing of Omniglot",
    ),
    "an image of another size": (
        lambda files: {**files, f"{EVERYONE[0]}/0000_03.png": png((28, 28))},
        r"0000_03\.png: .*28x28 pixels; Omniglot has 105x105",
    ),
    "a bomb of pixels": (
        lambda files: {**files, f"{EVERYONE[0]}/0000_03.png": png((8000, 8000))},
        r"0000_03\.png.*(8000x8000 pixels|more than 20000 bytes)",
    ),
}


def png(size):
    Image.new("1", size, 1).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("put", [put_zips, put_folders])
def test_a_faulty_set_is_refused_by_name(small, fault, put):
    change, message = FAULTY[fault]
    root = put(small / "root", change(members()))
    with pytest.raises(Error, match=message):
        load(root)
    assert not any(path.is_file() for path in (small / "cache").rglob("*"))


def test_more_wrong_characters_than_fit_on_a_line_are_counted(small):
    files = {f"images_background/A/character{i:02}/1.png": drawing(0, 0) for i in range(5)}
    with pytest.raises(Error, match="and 2 more characters differ"):
        omniglot_files.read_drawings(found(put_zips(small / "root", {**members(), **files})), EVERYONE)


def broken_zips(content):
    yield "empty", b""
    yield "not a zip", b"<html>no such page</html>"
    yield "cut short", content[: len(content) // 2]
    yield "no beginning", content[100:]
    middle = content.index(b"IHDR") if b"IHDR" in content else 200
    yield "a byte of a drawing", content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    encrypted = bytearray(content)
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = encrypted.index(sign)
        encrypted[at + offset] |= 1
    yield "encrypted", bytes(encrypted)
    unknown = bytearray(content)
    unknown[unknown.index(b"PK\x01\x02") + 10] = 99
    yield "a compression unknown", bytes(unknown)


def test_a_broken_zip_is_named(small):
    root = put_zips(small / "root", members())
    zipped = root / "images_background.zip"
    whole = zipped.read_bytes()
    for fault, content in broken_zips(whole):
        zipped.write_bytes(content)
        with pytest.raises(Error, match=r"(images_background\.zip: not a complete zip|has 0 drawings)") as error:
            load(root)
        assert "opy or download it again" in str(error.value), fault
    zipped.write_bytes(whole)
    load(root)


def test_a_bomb_in_a_zip_is_not_unpacked(small):
    files = {**members(), f"{EVERYONE[0]}/0000_03.png": bytes(10**6)}
    with pytest.raises(Error, match=r"images_background\.zip.*0000_03\.png has more than 20000 bytes"):
        load(put_zips(small / "root", files))


def test_names_that_lead_outside_write_nothing(small):
    evil = {f"../../{name}": content for name, content in members().items()}
    root = put_zips(small / "a" / "b" / "root", {})
    for part in omniglot_files.OMNIGLOT_PARTS:
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            for name, content in evil.items():
                if part in name:
                    archive.writestr(name, content)
    before = sorted(small.rglob("*"))
    assert len(images(root)) == 4  # read as what they claim to be, from memory
    assert sorted(small.rglob("*")) == before


def test_a_name_twice_in_a_zip_is_refused(small):
    root = put_zips(small / "root", members())
    with (
        zipfile.ZipFile(root / "images_background.zip", "a") as archive,
        pytest.warns(UserWarning, match="Dup"),
    ):
        archive.writestr(f"{EVERYONE[0]}/0000_01.png", drawing(3, 3))
    with pytest.raises(Error, match="Greek/character02 has 21"):
        load(root)


# ---- where it is found


def test_a_root_without_it_is_an_error_even_if_it_is_elsewhere(small, monkeypatch):
    put_zips(small / "env", members())
    monkeypatch.setenv("FMAML_DATA", str(small / "env"))
    with pytest.raises(Error, match=r"data\.root = .*nowhere: no Omniglot in .*nowhere/omniglot-py; expected"):
        load(small / "nowhere")
    omniglot(seed=0, device=CPU, ways=2, rotate=("val", "test"))


def test_one_part_is_not_enough(small):
    root = put_zips(small / "root", members())
    (root / "images_evaluation.zip").unlink()
    with pytest.raises(Error, match="expected images_background and images_evaluation"):
        load(root)


def test_without_a_download_missing_data_is_an_error(small):
    with pytest.raises(Error, match=r"data\.root is not set.*data\.name=glyphs"):
        omniglot(seed=0, device=CPU, ways=2, download=False)


def test_what_is_missing_is_downloaded_into_the_cache_folder(small, monkeypatch):
    origin = put_zips(small / "origin", members())
    asked = []

    def fetch(url, path, md5, *, cure):
        asked.append((url, md5))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin / path.name, path)

    monkeypatch.setattr(find, "download", fetch)
    for _ in range(2):
        omniglot(seed=0, device=CPU, ways=2, rotate=("val", "test"))
    address = "https://github.com/brendenlake/omniglot/raw/master/python/"
    assert asked == [
        (address + "images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        (address + "images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ]
    assert (small / "cache" / "fmaml" / "omniglot" / "images_background.zip").is_file()


# ---- the cache


def kept(small):
    return sorted((small / "cache" / "fmaml").glob("*.safetensors"))


def test_the_second_opening_reads_no_drawing(small, monkeypatch):
    root = put_folders(small / "root", members())
    first = load(root).sample("train", 0, range(4))
    monkeypatch.setattr(module, "read_drawings", lambda *_: pytest.fail("reads again"))
    assert torch.equal(load(root).sample("train", 0, range(4)).query.x, first.query.x)


@pytest.mark.parametrize("put", [put_zips, put_folders])
def test_other_files_are_other_cached_tensors(small, put):
    root = put(small / "root", members())
    load(root)
    swapped = {**members(), f"{EVERYONE[0]}/0000_01.png": drawing(3, 3)}
    put(root, swapped)
    os.utime(next(root.rglob("*.zip"), root / f"{EVERYONE[0]}/0000_01.png"), ns=(1, 1))
    load(root)
    assert len(kept(small)) == 2


def test_a_damaged_cache_is_made_again(small):
    root = put_zips(small / "root", members())
    expected = load(root).sample("train", 0, range(4)).query.x
    (file,) = kept(small)
    content = bytearray(file.read_bytes())
    content[-1000] ^= 255
    file.write_bytes(content)
    assert torch.equal(load(root).sample("train", 0, range(4)).query.x, expected)
    assert file.read_bytes() != content


# ---- the splits


def test_the_splits_are_1100_100_423_disjoint_characters():
    names = {split: class_names("omniglot", split) for split in OMNIGLOT_CLASSES}
    assert {split: len(set(rows)) for split, rows in names.items()} == OMNIGLOT_CLASSES
    everyone = [name for rows in names.values() for name in rows]
    assert len(everyone) == len(set(everyone)) == 1623
    parts = [name.partition("/")[0] for name in everyone]
    assert {part: parts.count(part) for part in set(parts)} == {
        "images_background": 964,
        "images_evaluation": 659,
    }
    assert len({name.split("/")[1] for name in everyone}) == 50


# ---- the real thing

real = pytest.mark.real_data("omniglot")


@pytest.fixture
def source():
    return omniglot(seed=0, device=CPU, download=False, queries=15)


@real
def test_the_real_omniglot_has_every_character_of_the_splits(source):
    assert source.about["classes"] == {"train": 4400, "val": 100, "test": 423}
    task = source.sample("test", 0, range(64))
    assert task.query.x.shape == (64, 75, 1, 28, 28)
    assert 0.04 < task.query.x.mean() < 0.13  # a little ink on much paper
    assert task.query.x.flatten(2).amax(2).min() > 0.5  # no drawing is empty


@real
def test_the_real_omniglot_opens_fast_from_its_cache(source):
    start = time.process_time()
    again = omniglot(seed=0, device=CPU, download=False, queries=15)
    assert time.process_time() - start < 2  # some 0.15 s on a free machine, making it 5 s
    for split in OMNIGLOT_CLASSES:
        assert torch.equal(again.sample(split, 3, range(2)).query.x, source.sample(split, 3, range(2)).query.x)


@real
def test_shifted_drawings_of_training_keep_their_ink_and_those_of_tests_their_place(source):
    moved = omniglot(seed=0, device=CPU, download=False, queries=15, augment=["shift"])
    (_, query), (_, plain) = (each.sample("train", 0, range(64)) for each in (moved, source))
    assert (query.x.flatten(2) != plain.x.flatten(2)).any(2).double().mean() > 0.9  # 1 of 49 stays in place
    assert (query.x.sum() / plain.x.sum() - 1).abs() < 0.05  # what leaves at a border comes back in as a reflection
    assert torch.equal(moved.sample("test", 0, range(8)).query.x, source.sample("test", 0, range(8)).query.x)


@real
def test_pixels_tell_real_characters_apart_as_published(source):
    """Nearest neighbour on pixels, 5-way 1-shot: 41.7 % (cosine) in Vinyals et al. 2016, table 1."""
    assert 0.38 < nearest_neighbour(source) < 0.50


def nearest_neighbour(source) -> float:
    task = source.sample("test", 0, range(300))
    guess = torch.cdist(task.query.x.flatten(2), task.support.x.flatten(2)).argmin(2)
    return (guess == task.query.y).double().mean().item()


def test_nearest_neighbour_is_right_about_characters_without_jitter():
    task = sample_episodes(
        equal_classes(torch.eye(8, dtype=torch.uint8).mul(255).view(8, 1, 1, 2, 4).expand(8, 9, 1, 2, 4).contiguous()),
        task_keys(0, "test", 0, range(20), CPU),
        ways=5,
        shots=1,
        queries=3,
    )
    guess = torch.cdist(task.query.x.flatten(2), task.support.x.flatten(2)).argmin(2)
    assert (guess == task.query.y).all()
