"""Image files of any size and mode decoded to one uint8 tensor, in parallel and without further copies."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ...errors import note
from ...files.plain_text import counted
from ...files.regular import check_regular
from ..preprocessing import Form

_MAX_IMAGE_BYTES = 2_000_000_000  # more than the pixels that Pillow decodes at most take up, uncompressed
WHITE = 65_535  # in images of 16 bits
_MAX_SQUARE_PIXELS = 100_000_000
_FILES_PER_CHUNK = 64  # decoded by one thread in one go
_PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels


def decode_images(files: list[str], form: Form) -> tuple[Tensor, dict[str, str]]:
    """The images of the readable files, uint8 [readable, channels, size, size]; for each other file an error message.

    Memory use is that of one tensor for all files, and the few images being decoded.
    """
    images = torch.zeros(len(files), form.channels, form.size, form.size, dtype=torch.uint8)
    pixels, white = images.numpy(), white_levels(files)
    light = [False] * len(files)

    def decode_chunk(first: int) -> dict[str, str]:
        errors: dict[str, str] = {}
        for i, file in enumerate(files[first : first + _FILES_PER_CHUNK], first):
            try:
                pixels[i], light[i] = decode_image(file, form, white.get(file, WHITE))
            except Exception as error:  # on damaged files Pillow's decoders raise errors of any kind
                errors[file] = str(error) or type(error).__name__
        return errors

    console = Console(stderr=True)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow's decoders release the GIL
        warnings.simplefilter("ignore")  # such as of a large image or an unknown tag
        chunks = pool.map(decode_chunk, range(0, len(files), _FILES_PER_CHUNK))
        total = -(-len(files) // _FILES_PER_CHUNK)
        bar = track(chunks, "reading images", total, console=console, disable=not console.is_terminal, transient=True)
        errors: dict[str, str] = {}
        for errors_of_chunk in bar:
            errors |= errors_of_chunk
    for line in describe_changes(sum(light), set(white.values())):
        note(line)
    readable = [i for i, file in enumerate(files) if file not in errors]
    if errors:
        for row, i in enumerate(readable):
            images[row] = images[i]  # in place, because a second tensor may not fit into memory
    return images[: len(readable)], errors


def describe_changes(light: int, whites: set[int]) -> list[str]:
    """A line for drawings whose light and dark were exchanged, and for images of 16 bits that use fewer."""
    exchanged = [f"{counted(light, 'drawing')} in light ink on dark: light and dark exchanged"] if light else []
    bits = ", ".join(str(white.bit_length()) for white in sorted(whites))
    return [*exchanged, *([f"images of 16 bits that use {bits} of them: scaled to the range in use"] if whites else [])]


class DecodedImage(NamedTuple):
    """One image in the form that was asked for."""

    values: np.ndarray  # uint8 [channels, size, size]
    light_ink: bool  # it is a drawing in light ink on dark, and has been exchanged


def white_levels(files: list[str]) -> dict[str, int]:
    """The values that stand for white in images of 16 bits, where their folder uses fewer bits; file -> 2**bits - 1.

    Scanners and cameras write 12 bits in 16, which would be nearly black.
    """
    tops: dict[str, dict[str, int]] = {}  # folder -> file -> its largest value
    for file in files:
        if file.lower().endswith((".png", ".tif", ".tiff", ".pgm")):
            with suppress(Exception), Image.open(file) as image:  # decoding it says why it cannot be read
                if image.mode.startswith("I"):
                    tops.setdefault(os.path.dirname(file), {})[file] = int(np.asarray(image).max())
    levels = {folder: (1 << max(max(own.values()).bit_length(), 8)) - 1 for folder, own in tops.items()}
    return {file: levels[folder] for folder, own in tops.items() if levels[folder] < WHITE for file in own}


def decode_image(file: str | BinaryIO, form: Form, white: int = WHITE) -> DecodedImage:
    """An image file, by its name or opened, in this form; ``white`` as in `to_form`.

    Rotated as its EXIF tag says, transparency replaced by white. Resized with the Lanczos filter, which averages over
    all source pixels. Of an animation, the first frame. Raises whatever Pillow does for a damaged file, UnsuitableFile
    for one that may never end, and ValueError for floating-point pixels.
    """
    if isinstance(file, str):
        check_regular(file, _MAX_IMAGE_BYTES)
    with Image.open(file) as image:
        image.draft(image.mode, (2 * form.size, 2 * form.size))  # decodes a large JPEG at a fraction of its size
        return to_form(image, form, white)


def to_form(image: Image.Image, form: Form, white: int = WHITE) -> DecodedImage:
    """An opened image in this form. ``white`` is the value that stands for white in an image of 16 bits."""
    # Pillow resizes a 1-bit image with the nearest neighbour, ignoring the filter; in mode "L" it averages.
    converted = _convert_mode(ImageOps.exif_transpose(image), _PILLOW_MODES[form.channels], white)
    light_ink = form.invert and (form.ink == "light" or (form.ink == "auto" and _has_dark_border(converted)))
    if light_ink:
        converted = ImageOps.invert(converted)
    if form.fit == "crop":
        converted = converted.crop(_central_square(*converted.size))
    elif form.fit == "pad" and converted.width != converted.height:
        side = max(converted.size)
        if side**2 > _MAX_SQUARE_PIXELS:
            raise ValueError(f"{converted.width} x {converted.height} pixels are too long a strip to make a square of")
        converted = ImageOps.pad(converted, (side, side), color="white")
    pixels = np.asarray(converted.resize((form.size, form.size), Image.Resampling.LANCZOS))
    pixels = 255 - pixels if form.invert else pixels
    return DecodedImage(pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1), light_ink)


def _has_dark_border(image: Image.Image) -> bool:
    """Whether most of the outermost pixels are dark: the paper's colour, since ink seldom reaches the border."""
    grey = np.asarray(image.convert("L"))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(border)) < 128


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of the largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _convert_mode(image: Image.Image, mode: str, white: int) -> Image.Image:
    """The image in mode "L" or "RGB", on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is unknown; save it as PNG")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        values = np.asarray(image).clip(0, white).astype(np.int64) * 255 // white
        return Image.fromarray(values.astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", foreground.size, "white"), foreground).convert(mode)
    return image.convert(mode)
