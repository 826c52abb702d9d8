"""What users have for images becomes what the network was trained on, and what is none is told in one line."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import fmaml
from fmaml.data.preprocessing import CHARACTER_FORM, Form
from fmaml.data.sources.omniglot import omniglot
from fmaml.errors import Error
from fmaml.models.user_images import Shape, read_support, to_inputs

real = pytest.mark.real_data("omniglot")
COLOUR = Shape((3, 8, 8), Form(8, 3))
CHARACTERS = Shape((1, 28, 28), CHARACTER_FORM)


def picture(width: int = 12, height: int = 10, colour: str = "red") -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def folder_of(tmp_path: Path, **classes: int) -> Path:
    for name, count in classes.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            picture().save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_files_folders_arrays_and_pictures_are_the_same(tmp_path):
    picture(colour="blue").save(tmp_path / "a.png")
    expected = to_inputs(picture(colour="blue"), COLOUR)
    assert expected.shape == (1, 3, 8, 8)
    assert expected.unique().tolist() == [0.0, 1.0]
    for images in (tmp_path, tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        assert torch.equal(to_inputs(images, COLOUR), expected)
    assert torch.equal(to_inputs(np.asarray(picture(colour="blue")), COLOUR), expected)
    assert torch.equal(to_inputs(expected, COLOUR), expected)
    assert len(to_inputs([picture(), np.asarray(picture()), str(tmp_path)], COLOUR)) == 3


def test_a_drawing_of_another_shape_is_padded_with_paper():
    wide = Image.new("L", (100, 20), "white")
    x = to_inputs(wide, CHARACTERS)
    assert x.shape == (1, 1, 28, 28)
    assert (x == 0).all()


@real
def test_an_omniglot_file_is_read_as_in_training():
    """Every drawing of one character, by the files' own path and by the data source."""
    source = omniglot(seed=0, device=torch.device("cpu"))
    assert source.form == CHARACTER_FORM
    archive = zipfile.ZipFile(source.about["files"][0])
    names = sorted(name for name in archive.namelist() if "Greek/character01/" in name and name.endswith(".png"))
    x = to_inputs([Image.open(io.BytesIO(archive.read(name))) for name in names], CHARACTERS)
    assert len(x) == 20
    known = {tuple(image.flatten().tolist()) for split in cast(Any, source).data.values() for image in split.images}
    assert all(tuple((255 * image).round().byte().flatten().tolist()) in known for image in x)


def test_support_is_a_folder_or_a_file_for_each_class(tmp_path):
    (tmp_path / "folders").mkdir()
    folder_of(tmp_path / "folders", cat=2, dog=1)
    by_class, white = read_support(tmp_path / "folders", COLOUR)
    assert ({name: len(x) for name, x in by_class.items()}, white) == ({"cat": 2, "dog": 1}, 0)
    (tmp_path / "files").mkdir()
    for name in ("cat", "dog"):
        picture().save(tmp_path / "files" / f"{name}.jpg")
    assert list(read_support(tmp_path / "files", COLOUR)[0]) == ["cat", "dog"]
    by_class, _ = read_support({"cat": [picture()], "dog": picture()}, COLOUR)
    assert list(by_class) == ["cat", "dog"]


def test_what_is_no_support_set_is_told(tmp_path):
    (tmp_path / "one").mkdir()
    folder_of(tmp_path / "one", cat=2)
    with pytest.raises(Error, match="one: has one class, cat; to tell classes apart it takes two or more"):
        read_support(tmp_path / "one", COLOUR)
    (tmp_path / "hole").mkdir()
    folder_of(tmp_path / "hole", cat=2, dog=0)
    with pytest.raises(Error, match="hole: has one class, cat"):
        read_support(tmp_path / "hole", COLOUR)
    picture().save(tmp_path / "file.png")
    with pytest.raises(Error, match=r"file\.png: is one image; name a folder with"):
        read_support(tmp_path / "file.png", COLOUR)
    with pytest.raises(Error, match="nowhere: no such file or folder"):
        read_support(tmp_path / "nowhere", COLOUR)
    with pytest.raises(Error, match="class dog has no image"):
        read_support({"cat": [picture()], "dog": torch.zeros(0, 3, 8, 8)}, COLOUR)


def test_what_is_no_image_is_told(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(1000))
    with pytest.raises(Error, match=r"video\.mp4: not an image that can be read; give a PNG"):
        to_inputs(tmp_path / "video.mp4", COLOUR)
    (tmp_path / "huge.png").write_bytes(huge_png(50_000))
    with pytest.raises(Error, match=r"huge\.png: has too many pixels to be opened safely"):
        to_inputs(tmp_path / "huge.png", COLOUR)
    with pytest.raises(Error, match=r"none\.png: no such file or folder"):
        to_inputs(tmp_path / "none.png", COLOUR)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Error, match="empty: no image in it"):
        to_inputs(tmp_path / "empty", COLOUR)
    with pytest.raises(ValueError, match=r"this network takes \[n, 3, 8, 8\]; these are \[2, 1, 8, 8\]"):
        to_inputs(torch.zeros(2, 1, 8, 8), COLOUR)
    with pytest.raises(ValueError, match=r"x: this network takes \[n, 1\]; these are"):
        to_inputs(picture(), Shape((1,), None))


def huge_png(side: int) -> bytes:
    """A PNG that claims side x side pixels in a few hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_white_of_sixteen_bits_is_that_of_the_support_set(tmp_path):
    """The same 12-bit picture gives the same input in every company, and from a file as from memory."""
    rng = np.random.default_rng(0)
    for name, top in (("bright", 4000), ("dim", 900)):
        (tmp_path / name).mkdir()
        Image.fromarray(rng.integers(0, top, (56, 56)).astype(np.uint16)).save(tmp_path / name / "0.png")
    dim = np.asarray(Image.open(tmp_path / "dim" / "0.png"))
    adapted = fmaml.load("photographs").adapt(tmp_path)
    adapted.save(tmp_path / "mine.safetensors")
    adapted = fmaml.load_adapted(tmp_path / "mine.safetensors")
    alone, beside = to_inputs(dim, adapted.shape), to_inputs([dim, dim * 60], adapted.shape)
    assert alone.max() < 900 / 4095 + 0.01, "white is 4095, as in the support set"
    assert torch.equal(alone[0], beside[0])
    assert torch.equal(alone, to_inputs(tmp_path / "dim" / "0.png", adapted.shape))
    assert beside[1].max() <= 1
    assert beside[1].mean() == pytest.approx(60 * dim.mean() / 65535, abs=0.01), "brighter pictures keep their range"
    classifier = fmaml.FewShotClassifier("photographs").fit(
        [str(tmp_path / name / "0.png") for name in ("bright", "dim")], ["b", "d"]
    )
    torch.testing.assert_close(
        torch.from_numpy(classifier.predict_proba([str(tmp_path / "dim" / "0.png")])),
        adapted.predict([dim]).probabilities,
        atol=1e-5,
        rtol=0,
    )
