"""Image files of any size and mode decoded to one uint8 tensor, in parallel and without further copies."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ...files.regular import check_regular
from ..preprocessing import Form

_MAX_IMAGE_BYTES = 2_000_000_000  # more than the pixels that Pillow decodes at most take up, uncompressed
_MAX_SQUARE_PIXELS = 100_000_000
_FILES_PER_CHUNK = 64  # decoded by one thread in one go
_PILLOW_MODES = {1: "L", 3: "RGB"}  # by number of channels


def decode_images(files: list[str], form: Form) -> tuple[Tensor, dict[str, str]]:
    """The images of the readable files, uint8 [readable, channels, size, size]; for each other file an error message.

    Memory use is that of one tensor for all files, and the few images being decoded.
    """
    images = torch.zeros(len(files), form.channels, form.size, form.size, dtype=torch.uint8)
    pixels = images.numpy()

    def decode_chunk(first: int) -> dict[str, str]:
        errors: dict[str, str] = {}
        for i, file in enumerate(files[first : first + _FILES_PER_CHUNK], first):
            try:
                pixels[i] = decode_image(file, form)
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
    readable = [i for i, file in enumerate(files) if file not in errors]
    if errors:
        for row, i in enumerate(readable):
            images[row] = images[i]  # in place, because a second tensor may not fit into memory
    return images[: len(readable)], errors


def decode_image(file: str | BinaryIO, form: Form) -> np.ndarray:
    """An image file, by its name or opened, as uint8 [channels, size, size].

    Rotated as its EXIF tag says, transparency replaced by white. Resized with the Lanczos filter, which averages over
    all source pixels. Of an animation, the first frame. Raises whatever Pillow does for a damaged file, UnsuitableFile
    for one that may never end, and ValueError for floating-point pixels.
    """
    if isinstance(file, str):
        check_regular(file, _MAX_IMAGE_BYTES)
    with Image.open(file) as image:
        image.draft(image.mode, (2 * form.size, 2 * form.size))  # decodes a large JPEG at a fraction of its size
        return to_form(image, form)


def to_form(image: Image.Image, form: Form) -> np.ndarray:
    """An opened image as uint8 [channels, size, size], as `decode_image` does it."""
    # Pillow resizes a 1-bit image with the nearest neighbour, ignoring the filter; in mode "L" it averages.
    converted = _convert_mode(ImageOps.exif_transpose(image), _PILLOW_MODES[form.channels])
    if form.fit == "crop":
        converted = converted.crop(_central_square(*converted.size))
    elif form.fit == "pad" and converted.width != converted.height:
        side = max(converted.size)
        if side**2 > _MAX_SQUARE_PIXELS:
            raise ValueError(f"{converted.width} x {converted.height} pixels are too long a strip to make a square of")
        converted = ImageOps.pad(converted, (side, side), color="white")
    pixels = np.asarray(converted.resize((form.size, form.size), Image.Resampling.LANCZOS))
    pixels = 255 - pixels if form.invert else pixels
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of the largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode "L" or "RGB", on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is unknown; save it as PNG")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", foreground.size, "white"), foreground).convert(mode)
    return image.convert(mode)
