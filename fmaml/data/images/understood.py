"""Describe the pictures found: number by class, size, kind and values."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from PIL import Image

from ...files.plain_text import counted, printable
from .decode import open_picture

LOOKED_AT = 200  # sizes of at most so many pictures are read, spread evenly over all
KIND_OF_MODE = {"1": "black and white", "L": "grey", "LA": "grey", "RGB": "colour", "RGBA": "colour", "P": "colour"}


def describe_pictures(classes: Mapping[str, Sequence[Any]]) -> str:
    """A line such as "8 classes, 58 pictures: 7 (Apple) to 9 (Kiwi) of each; 48x48 to 640x480 pixels, colour".

    A picture is a file name, a `PIL.Image`, or a uint8 array.
    """
    pictures = [picture for own in classes.values() for picture in own]
    found = describe_counts({name: len(own) for name, own in classes.items()})
    sizes, kinds = sizes_and_kinds(pictures[:: -(-len(pictures) // LOOKED_AT)])
    if not sizes:
        return found
    (w, h), (wide, high) = (min(sizes, key=area), max(sizes, key=area))
    size = f"{w}x{h}" + (f" to {wide}x{high}" if (w, h) != (wide, high) else "")
    return f"{found}; {size} pixels, {' and '.join(kinds)}"


def describe_counts(counts: Mapping[str, int], thing: str = "picture") -> str:
    """The numbers of classes and of things, and of those in the smallest and the largest class."""
    found = f"{len(counts)} class{'es' * (len(counts) != 1)}, {counted(sum(counts.values()), thing)}"
    if len(counts) < 2:
        return found
    smallest, largest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[smallest] == counts[largest]:
        return f"{found}: {counts[smallest]} of each"
    return f"{found}: {counts[smallest]} ({printable(smallest)}) to {counts[largest]} ({printable(largest)}) of each"


def describe_range(x: np.ndarray[Any, Any], drawings: bool) -> str:
    """The range of the values x [n, ..] that the network sees, and the ink of drawings [n, 1, height, width].

    The network was trained on ink of 1 on paper of 0, in which most of the border is paper.
    """
    found = f"values {x.min():.3g} to {x.max():.3g} as the network sees them"
    if not drawings:
        return found
    border = np.concatenate([x[:, 0, [0, -1], :].reshape(len(x), -1), x[:, 0, :, [0, -1]].reshape(len(x), -1)], 1)
    wrong = int((np.median(border, 1) >= 0.5).sum())
    if wrong:
        return f"{found}; in {wrong} of {len(x)} the paper is 1, but in training ink was 1: give 1 - x"
    return f"{found}; ink is 1 on paper of 0, as in training"


def sizes_and_kinds(pictures: Sequence[Any]) -> tuple[list[tuple[int, int]], list[str]]:
    """The sizes of pictures, and their kinds, sorted. Unreadable files are left out."""
    sizes, kinds = [], set[str]()
    for picture in pictures:
        with suppress(Exception), opened(picture) as image:  # decoding reports unreadable files
            sizes.append(image.size)
            kinds.add("16-bit grey" if image.mode.startswith("I") else KIND_OF_MODE.get(image.mode, "colour"))
    return sizes, sorted(kinds)


def opened(picture: Any) -> Any:
    """A context with the picture as a `PIL.Image`."""
    if isinstance(picture, Image.Image):
        return nullcontext(picture)
    return Image.fromarray(picture) if isinstance(picture, np.ndarray) else open_picture(str(picture))


def area(size: tuple[int, int]) -> int:
    """The pixels of a picture."""
    return size[0] * size[1]
