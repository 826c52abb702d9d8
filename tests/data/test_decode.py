"""Images of any size and mode become uint8 squares."""

import numpy as np
import pytest
from PIL import Image

from fmaml.data.images import decode
from fmaml.data.images.decode import decode_images
from fmaml.data.images.scan import IMAGE_SUFFIXES, reads_avif
from fmaml.data.preprocessing import Form
from fmaml.errors import Error

RGB = Form(8, 3)
GREY = Form(8, 1)
DRAWING = Form(8, 1, "pad", invert=True, ink="auto")


def decode_image(file, form):
    return decode.decode_image(file, form).values


def drawing(width: int, *, ink: int, paper: int) -> Image.Image:
    pixels = np.full((24, width), paper, dtype=np.uint8)
    pixels[8:16, width // 2 - 2 : width // 2 + 2] = ink
    return Image.fromarray(pixels)


@pytest.mark.parametrize("width", [24, 12])  # square, and padded with the paper's colour
def test_a_drawing_in_light_ink_is_seen_as_one_in_dark_ink(tmp_path, width, capsys):
    dark = save(tmp_path, drawing(width, ink=0, paper=255), "dark.png")
    light = save(tmp_path, drawing(width, ink=255, paper=0), "light.png")
    assert (decode_image(light, DRAWING) == decode_image(dark, DRAWING)).all()
    images, errors = decode_images([str(dark), str(light), str(light)], DRAWING)
    assert not errors
    assert (images[0] == images[1]).all()
    assert "2 drawings in light ink on dark: light and dark exchanged" in capsys.readouterr().err
    kept = decode_image(light, DRAWING._replace(ink="dark"))
    assert kept[0, 0, 4] > 200, "told that the ink is dark, the dark paper is taken for it"
    assert decode_image(dark, DRAWING._replace(ink="light"))[0, 0, 4] > 200
    photo = DRAWING._replace(invert=False)
    assert decode_image(light, photo)[0, 0, 4] < 50, "a photograph is never exchanged"


def test_sixteen_bits_that_use_twelve_are_scaled_together(tmp_path, capsys):
    ramp = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    files = []
    for name, part in (("a/bright.png", ramp), ("b/dim.png", ramp // 4)):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(part).save(tmp_path / name)
        files.append(str(tmp_path / name))
    images, _ = decode_images(files, GREY)
    assert np.abs(images[0, 0].numpy() - ramp / 4095 * 255).max() <= 1
    assert np.abs(images[1, 0].numpy() - ramp // 4 / 4095 * 255).max() <= 1, "both by the range of all"
    assert "16-bit images that use only 12 bits: scaled to the range in use" in capsys.readouterr().err


def save(tmp_path, image, name="image.png", **more):
    image.save(tmp_path / name, **more)
    return str(tmp_path / name)


def plain(mode, color, size=(8, 8)):
    return Image.new(mode, size, color)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGB", (200, 30, 10), (200, 30, 10)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("LA", (50, 255), (50, 50, 50)),
        ("RGBA", (9, 9, 9, 0), (255, 255, 255)),  # transparent: paper, whatever colour lies under it
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("I;16", 257 * 100, (100, 100, 100)),
    ],
)
def test_every_mode(tmp_path, mode, color, expected):
    file = save(tmp_path, plain(mode, color))
    found = decode_image(file, RGB)
    assert found.shape == (3, 8, 8)
    assert found.dtype == np.uint8
    assert found[:, 4, 4].tolist() == list(expected)
    assert decode_image(file, GREY).shape == (1, 8, 8)


def test_sixteen_bits_are_not_cut_off(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = decode_image(save(tmp_path, Image.fromarray(ramp)), GREY)
    assert np.abs(found[0] - ramp / 257.0).max() <= 1


def test_cmyk_and_grey_jpegs(tmp_path):
    for mode in ("CMYK", "L"):
        file = save(tmp_path, plain(mode, 0), "image.jpg")
        assert decode_image(file, RGB).std() < 1


def test_an_image_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = decode_image(save(tmp_path, Image.fromarray(pixels)), RGB)
    assert (found == pixels.transpose(2, 0, 1)).all()


def test_the_middle_square_or_all_of_it(tmp_path):
    """Red, green, blue in thirds: the middle is green; squeezed, all three are there."""
    thirds = Image.new("RGB", (48, 16))
    for i, color in enumerate(("#ff0000", "#00ff00", "#0000ff")):
        thirds.paste(color, (16 * i, 0, 16 * i + 16, 16))
    file = save(tmp_path, thirds)
    cropped = decode_image(file, RGB)
    assert (cropped[1] == 255).all()
    assert cropped[0].max() == cropped[2].max() == 0
    squeezed = decode_image(file, RGB._replace(fit="squeeze"))
    assert min(squeezed[0, 4, 0], squeezed[2, 4, 7]) > 240
    upright = decode_image(save(tmp_path, thirds.transpose(Image.Transpose.ROTATE_90), "up.png"), RGB)
    assert (upright == cropped).all()


def test_reducing_averages(tmp_path):
    """A board of single black and white pixels becomes grey, where skipping pixels would give black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = decode_image(save(tmp_path, Image.fromarray(board)), GREY)
    assert np.abs(found.astype(int) - 127).max() < 12


def test_exif_orientation_is_obeyed(tmp_path):
    """Orientation 6: to be turned by a quarter clockwise. What is at the bottom left comes to the top left."""
    image = Image.new("L", (16, 16))
    image.paste(255, (0, 8, 8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode_image(save(tmp_path, image, "photo.jpg", exif=exif, quality=95), GREY)[0]
    assert found[1:3, 1:3].min() > 200
    assert found[5:, :].max() < 60


def test_a_large_jpeg_is_the_same_picture_decoded_small(tmp_path):
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    file = save(tmp_path, Image.fromarray(np.tile(ramp, (512, 1))), "large.jpg", quality=95)
    found = decode_image(file, GREY)[0, 4].astype(float)
    assert np.abs(found - (np.arange(8) + 0.5) * 32).max() < 4


def test_in_order_and_what_cannot_be_read_is_told(tmp_path):
    files = [save(tmp_path, plain("L", i), f"{i:03}.png") for i in range(150)]
    (tmp_path / "010.png").write_text("a text")
    (tmp_path / "149.png").write_bytes((tmp_path / "148.png").read_bytes()[:-20])
    (tmp_path / "077.png").unlink()
    Image.new("F", (8, 8)).save(tmp_path / "float.tiff")
    images, wrong = decode_images([*files, float_file := str(tmp_path / "float.tiff")], GREY)
    assert sorted(wrong) == sorted([files[10], files[77], files[149], float_file])
    assert "cannot identify" in wrong[files[10]]
    assert "floating-point" in wrong[float_file]
    assert images[:, 0, 3, 3].tolist() == [i for i in range(150) if i not in (10, 77, 149)]


def test_a_bomb_of_pixels_is_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    images, wrong = decode_images([file := save(tmp_path, plain("L", 0, (40, 40)))], GREY)
    assert "has too many pixels to be opened safely; save it smaller" in wrong[file]
    assert images.shape == (0, 1, 8, 8)


def test_the_limit_on_pixels_is_named_and_can_be_set(tmp_path, monkeypatch):
    file = save(tmp_path, plain("L", 77, (50, 40)))
    monkeypatch.setenv("FMAML_MAX_PIXELS", "1999")
    with pytest.raises(decode.TooManyPixels, match=r"save it smaller \(at most 1,999; FMAML_MAX_PIXELS\)"):
        decode_image(file, GREY)
    monkeypatch.setenv("FMAML_MAX_PIXELS", "2K")
    assert (decode_image(file, GREY) == 77).all()
    monkeypatch.setenv("FMAML_MAX_PIXELS", "many")
    with pytest.raises(Error, match="FMAML_MAX_PIXELS = many: not a size; give a number of pixels"):
        decode_image(file, GREY)


def test_a_jpeg_that_is_read_at_a_fraction_may_have_four_times_as_many_pixels(tmp_path, monkeypatch):
    file = save(tmp_path, plain("L", 77, (400, 300)), "a.jpg")
    monkeypatch.setenv("FMAML_MAX_PIXELS", "30K")
    assert np.abs(decode_image(file, GREY).astype(int) - 77).max() <= 1
    monkeypatch.setenv("FMAML_MAX_PIXELS", "29999")
    with pytest.raises(decode.TooManyPixels):
        decode_image(file, GREY)


def test_every_suffix_of_an_image_is_read_and_no_other_format(tmp_path):
    for suffix in (*IMAGE_SUFFIXES, *([".avif"] if reads_avif() else [])):
        assert np.abs(decode_image(save(tmp_path, plain("L", 77), f"a{suffix}"), GREY).astype(int) - 77).max() <= 2
    Image.init()
    for kind in ("EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "ICNS", "JPEG2000"):
        plain("RGB", (77, 77, 77), (32, 32)).save(tmp_path / "a.png", kind)
        with pytest.raises(OSError, match="cannot identify image file"):
            decode_image(str(tmp_path / "a.png"), GREY)
