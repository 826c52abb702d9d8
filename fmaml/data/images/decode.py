"""Decode image files of any mode to one uint8 tensor, in parallel and without more copies.

`open_picture` opens every image file: only formats of pixels, and only as many pixels as the limit allows. Pillow would
start Ghostscript for a file that begins as PostScript does.
"""

import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from rich.progress import track
from torch import Tensor

from ...errors import note
from ...files.console import CleanConsole
from ...files.plain_text import counted
from ...files.regular import check_regular, limit_from
from ..preprocessing import Form

_MAX_IMAGE_BYTES = 2_000_000_000  # larger than any uncompressed image that Pillow decodes
WHITE = 65_535  # of 16-bit images
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")  # of pixels; their decoders run no program
_MAX_PIXELS = 25_000_000  # of a picture
_MAX_SIDE = 1_000_000  # resizing takes 48 bytes a pixel of a row
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # tags of a TIFF
_FILES_PER_CHUNK = 64  # decoded at once by one thread
_PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels


def decode_images(files: list[str], form: Form) -> tuple[Tensor, dict[str, str]]:
    """Decode files. Returns the images of readable files, uint8 [readable, channels, size, size], and errors by file.

    Needs the memory of one tensor for all files, and of the few images being decoded.
    """
    images = torch.zeros(len(files), form.channels, form.size, form.size, dtype=torch.uint8)
    pixels, white = images.numpy(), white_level(files)
    light, whites = [False] * len(files), set[int]()

    def decode_chunk(first: int) -> dict[str, str]:
        errors: dict[str, str] = {}
        for i, file in enumerate(files[first : first + _FILES_PER_CHUNK], first):
            try:
                pixels[i], light[i], level = decode_image(file, form, white)
                whites.add(level)
            except Exception as error:  # on damaged files Pillow's decoders raise errors of any kind
                errors[file] = str(error) or type(error).__name__
        return errors

    console = CleanConsole(stderr=True)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow's decoders release the GIL
        warnings.simplefilter("ignore")  # such as for a large image or an unknown tag
        chunks = pool.map(decode_chunk, range(0, len(files), _FILES_PER_CHUNK))
        total = -(-len(files) // _FILES_PER_CHUNK)
        bar = track(chunks, "reading images", total, console=console, disable=not console.is_terminal, transient=True)
        errors: dict[str, str] = {}
        for errors_of_chunk in bar:
            errors |= errors_of_chunk
    for line in describe_changes(sum(light), whites):
        note(line)
    readable = [i for i, file in enumerate(files) if file not in errors]
    if errors:
        for row, i in enumerate(readable):
            images[row] = images[i]  # in place: a second tensor may not fit into memory
    return images[: len(readable)], errors


def describe_changes(light: int, whites: set[int]) -> list[str]:
    """Lines that report exchanged light and dark in drawings, and rescaled 16-bit images."""
    exchanged = [f"{counted(light, 'drawing')} in light ink on dark: light and dark exchanged"] if light else []
    bits = ", ".join(str(white.bit_length()) for white in sorted(whites) if 0 < white < WHITE)
    return [*exchanged, *([f"16-bit images that use only {bits} bits: scaled to the range in use"] if bits else [])]


class DecodedImage(NamedTuple):
    """One decoded image."""

    values: np.ndarray  # uint8 [channels, size, size]
    light_ink: bool  # it was a drawing in light ink; light and dark were exchanged
    white: int  # the value taken as white, if it has 16 bits; else 0


def white_level(files: Iterable[str]) -> int:
    """The value of white in the 16-bit images of these files, see `white_of`; 0 if there are none."""
    level = 0
    for file in files:
        if file.lower().endswith((".png", ".tif", ".tiff", ".pgm")):
            with suppress(Exception), open_picture(file) as image:  # decoding reports unreadable files
                level = max(level, white_of(image))
    return level


def white_of(image: Image.Image) -> int:
    """The largest value of the bits that a 16-bit image uses: 8, 10, 12, 14 or 16; 0 for other images.

    Scanners and cameras write 12 bits in 16; unscaled, such images would be nearly black.
    """
    if not image.mode.startswith("I"):
        return 0
    brightest = int(np.asarray(image).max())
    return next((2**bits - 1 for bits in (8, 10, 12, 14) if brightest < 2**bits), WHITE)


class TooManyPixels(ValueError):
    """Decoding the picture would take too much memory."""

    def __init__(self) -> None:
        super().__init__(
            f"has too many pixels to be opened safely; save it smaller (at most {max_pixels():,}; FMAML_MAX_PIXELS)"
        )


def max_pixels() -> int:
    """The largest number of pixels of a picture, from $FMAML_MAX_PIXELS; Error if that is not a size."""
    return limit_from("FMAML_MAX_PIXELS", _MAX_PIXELS, "pixels")


def open_picture(file: str | BinaryIO, side: int | None = None) -> Image.Image:
    """Open an image file without decoding it.

    A JPEG with sides longer than twice ``side`` is decoded at a fraction of its size, so it may have four times as many
    pixels. Raises UnsuitableFile for a file that may never end, TooManyPixels, and any error of Pillow for a file of
    other formats.
    """
    most = max_pixels()
    if isinstance(file, str):
        check_regular(file, _MAX_IMAGE_BYTES)
    try:
        image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise TooManyPixels from None
    pixels = prod(image.size) / (4 if image.format in ("JPEG", "MPO") else 1)
    if side is not None:
        image.draft(image.mode, (2 * side, 2 * side))
        pixels = max(pixels, prod(image.size))
    if max(pixels, _pixels_of_tile(image)) > most or max(image.size) > _MAX_SIDE:
        image.close()
        raise TooManyPixels
    return image


def _pixels_of_tile(image: Image.Image) -> int:
    """The pixels of one tile of a TIFF, which may be larger than the image; 0 without tiles."""
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)


def decode_image(file: str | BinaryIO, form: Form, white: int = 0) -> DecodedImage:
    """Decode an image file, by name or opened, to this form; ``white`` as in `to_form`.

    The image is rotated by its EXIF tag, and transparency becomes white. It is resized with the Lanczos filter, which
    averages over all source pixels. An animation gives its first frame. Raises any error of Pillow for a damaged file,
    UnsuitableFile for a file that may never end, and ValueError for floating-point pixels.
    """
    with open_picture(file, form.size) as image:
        return to_form(image, form, white)


def to_form(image: Image.Image, form: Form, white: int = 0) -> DecodedImage:
    """Convert an opened image to this form. ``white`` is the least value of white in a 16-bit image, see `white_of`."""
    white = max(white, own) if (own := white_of(image)) else 0
    # Convert first: Pillow ignores the filter for 1-bit images, but averages in mode "L".
    converted = _convert_mode(_upright(image), _PILLOW_MODES[form.channels], white)
    light_ink = form.invert and (form.ink == "light" or (form.ink == "auto" and _has_dark_border(converted)))
    if light_ink:
        converted = ImageOps.invert(converted)
    if form.fit == "crop":
        converted = converted.crop(_central_square(*converted.size))
    elif form.fit == "pad" and converted.width != converted.height:
        side = max(converted.size)
        if side**2 > 4 * max_pixels():
            raise ValueError(f"{converted.width} x {converted.height} pixels: too long to pad to a square")
        converted = ImageOps.pad(converted, (side, side), color="white")
    pixels = np.asarray(converted.resize((form.size, form.size), Image.Resampling.LANCZOS))
    pixels = 255 - pixels if form.invert else pixels
    return DecodedImage(pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1), light_ink, white)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate the image by its EXIF tag; without one, do not copy it."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ExifTags.Base.Orientation, 1) != 1 else image


def _has_dark_border(image: Image.Image) -> bool:
    """Whether most border pixels, and so the paper, are dark. Ink seldom reaches the border."""
    grey = np.asarray(image.convert("L"))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(border)) < 128


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of the largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _convert_mode(image: Image.Image, mode: str, white: int) -> Image.Image:
    """Convert to mode "L" or "RGB"; transparent parts become white."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers of unknown range; save it as PNG")
    if image.mode.startswith("I"):  # 16 bits; Pillow's conversion would clip at 255
        grey = (np.arange(white + 1) * 255 // white).astype(np.uint8)
        return Image.fromarray(grey[np.asarray(image).clip(0, white)]).convert(mode)
    if image.has_transparency_data:
        foreground = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", foreground.size, "white"), foreground).convert(mode)
    return image.convert(mode)
