"""Describe the pictures found: number by class, size and kind."""

from contextlib import suppress

from ...files.plain_text import counted, printable
from .decode import open_picture
from .scan import Classes

LOOKED_AT = 200  # sizes of at most so many pictures are read, spread evenly over all
KIND_OF_MODE = {"1": "black and white", "L": "grey", "LA": "grey", "RGB": "colour", "RGBA": "colour", "P": "colour"}


def describe_pictures(classes: Classes) -> str:
    """A line such as "8 classes, 58 pictures: 7 (Apple) to 9 (Kiwi) of each; 48x48 to 640x480 pixels, colour"."""
    files = [file for own in classes.values() for file in own]
    found = f"{len(classes)} class{'es' * (len(classes) != 1)}, {counted(len(files), 'picture')}"
    if len(classes) > 1:
        found += f": {describe_counts(classes)}"
    sizes, kinds = sizes_and_kinds(files[:: -(-len(files) // LOOKED_AT)])
    if not sizes:
        return found
    (w, h), (wide, high) = (min(sizes, key=area), max(sizes, key=area))
    size = f"{w}x{h}" + (f" to {wide}x{high}" if (w, h) != (wide, high) else "")
    return f"{found}; {size} pixels, {' and '.join(kinds)}"


def describe_counts(classes: Classes) -> str:
    """The numbers of pictures of the smallest and the largest class."""
    counts = {name: len(files) for name, files in classes.items()}
    smallest, largest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[smallest] == counts[largest]:
        return f"{counts[smallest]} of each"
    return f"{counts[smallest]} ({printable(smallest)}) to {counts[largest]} ({printable(largest)}) of each"


def sizes_and_kinds(files: list[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """The sizes of pictures, and their kinds, sorted. Unreadable files are left out."""
    sizes, kinds = [], set[str]()
    for file in files:
        with suppress(Exception), open_picture(file) as image:  # decoding reports unreadable files
            sizes.append(image.size)
            kinds.add("16-bit grey" if image.mode.startswith("I") else KIND_OF_MODE.get(image.mode, "colour"))
    return sizes, sorted(kinds)


def area(size: tuple[int, int]) -> int:
    """The pixels of a picture."""
    return size[0] * size[1]
