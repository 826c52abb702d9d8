"""Image files, whatever their size and mode, to one uint8 tensor: in parallel, straight into its place."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

FEW = 64  # files that a thread takes at a time
MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels


class Form(NamedTuple):
    """What every image is brought to."""

    size: int  # height and width
    channels: int  # 1: grey, 3: red, green, blue
    crop: bool  # cut the middle square out first; without it an oblong image is squeezed


def decode_all(files: list[str], form: Form) -> tuple[Tensor, dict[int, str]]:
    """Uint8 [files, channels, size, size], and what is wrong with the files that cannot be read, by number.

    The rows of those are 0. All the memory it takes is the tensor and the few images in hand.
    """
    images = torch.zeros(len(files), form.channels, form.size, form.size, dtype=torch.uint8)
    into = images.numpy()

    def some(first: int) -> dict[int, str]:
        wrong = {}
        for i in range(first, min(first + FEW, len(files))):
            try:
                into[i] = decode(files[i], form)
            except Exception as error:  # a file from anywhere: Pillow's decoders raise of every kind
                wrong[i] = str(error) or type(error).__name__
        return wrong

    console = Console(stderr=True)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow's decoders free the lock
        warnings.simplefilter("ignore")  # such as of a large image, or of an odd tag in it
        parts = pool.map(some, range(0, len(files), FEW))
        total = -(-len(files) // FEW)
        bar = track(parts, "reading images", total, console=console, disable=not console.is_terminal, transient=True)
        return images, {i: what for part in bar for i, what in part.items()}


def decode(file: str, form: Form) -> np.ndarray:
    """One image, uint8 [channels, size, size]. Turned as its EXIF tag says; what is transparent becomes white.

    It is reduced or enlarged by Lanczos' filter, which averages over all pixels that one pixel stands for. Of an
    animation it is the first frame.
    """
    with Image.open(file) as image:
        image.draft(image.mode, (2 * form.size, 2 * form.size))  # a large JPEG is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(image)
        plain = flat(upright, MODES[form.channels])
    whole = plain.crop(middle(*plain.size)) if form.crop else plain
    square = whole.resize((form.size, form.size), Image.Resampling.LANCZOS)
    pixels = np.asarray(square)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def middle(width: int, height: int) -> tuple[int, int, int, int]:
    """The box of the largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def flat(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode "L" or "RGB", on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, of which nobody knows the range; save it as PNG")
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion would cut off at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert(mode)
    return image.convert(mode)


def shown(wrong: list[str], few: int = 3) -> str:
    """How many images cannot be read, and the first few of them."""
    more = f" and {len(wrong) - few} more" if len(wrong) > few else ""
    return f"{len(wrong)} unreadable image{'s' * (len(wrong) != 1)}: {', '.join(wrong[:few])}{more}"
