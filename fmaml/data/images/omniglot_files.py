"""Omniglot's image files, out of zips or of unpacked folders. Nothing is extracted: no file is written."""

import contextlib
import io
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import UserError
from ..published import CHARACTER_SIZE, DRAWINGS_PER_CLASS

PARTS = ("images_background", "images_evaluation")
PIXELS = (105, 105)  # of an original drawing
LARGEST = 20_000  # bytes of one file; the originals have 150 to 700
LARGEST_ZIP = 20_000_000  # bytes; the published ones have 9 and 6 million


def locate(folder: Path) -> list[Path] | None:
    """Both parts in this folder, each a zip or a folder; None if one is not there.

    A zip goes before a folder: a zip cut short is noticed, a folder may be left of an unpacking that was cut
    short.
    """
    found = [_part(folder, part) for part in PARTS]
    return [part for part in found if part] if all(found) else None


def _part(folder: Path, name: str) -> Path | None:
    zipped = folder / f"{name}.zip"
    return zipped if zipped.is_file() else folder / name if (folder / name).is_dir() else None


def state(parts: list[Path]) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change of every file: differs whenever the drawings may have changed."""
    found = [(part, file) for part in parts for file in ([str(part)] if part.is_file() else _files(part))]
    stats = ((file.removeprefix(str(part.parent)), os.stat(file)) for part, file in found)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _files(folder: Path) -> list[str]:
    """All that lies in a folder, in order. Strings: 32,460 of them, Path objects would take a second."""
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


def read(parts: list[Path], characters: list[str]) -> Tensor:
    """All drawings, uint8 [characters, 20, 1, 28, 28], ink 255 on 0, each character's by file name.

    UserError unless there are exactly these characters, such as ``images_background/Greek/character01``, and
    20 drawings of each.
    """
    listed = {part: sorted(_listing(part)) for part in parts}
    _check(Counter(name.rpartition("/")[0] for files in listed.values() for name, _ in files), characters)
    images = [_ink(name, content) for part, files in listed.items() for name, content in _contents(part, files)]
    place = {name: i for i, name in enumerate(sorted(characters))}
    by_name = torch.from_numpy(np.stack(images)).unflatten(0, (-1, DRAWINGS_PER_CLASS)).unsqueeze(2)
    return by_name[[place[name] for name in characters]]


def _listing(part: Path) -> list[tuple[str, str]]:
    """Every drawing's name, ``part/Alphabet/characterNN/file.png``, and its place in the zip or on disk."""
    if part.is_dir():
        return [("/".join(file.parts[-4:]), str(file)) for file in part.glob("*/character*/*.png")]
    pattern = re.compile(rf"(?:.*/)?({part.stem}/[^/]+/character\d+/[^/]+\.png)")
    with _opened(part) as archive:
        matches = ((pattern.fullmatch(name), name) for name in archive.namelist())
        return [(match[1], name) for match, name in matches if match]


def _contents(part: Path, files: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every drawing listed."""
    if part.is_dir():
        yield from ((name, Path(file).read_bytes()) for name, file in files)
        return
    with _opened(part) as archive:
        for name, member in files:
            if archive.getinfo(member).file_size > LARGEST:
                raise zipfile.BadZipFile(f"{member} has more than {LARGEST} bytes")
            yield name, archive.read(member)


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose faults, whenever they show, are the user's to mend."""
    try:
        if part.stat().st_size > LARGEST_ZIP:  # a list of a million names alone takes seconds
            raise zipfile.BadZipFile(f"it has more than {LARGEST_ZIP} bytes")
        with zipfile.ZipFile(part) as archive:
            yield archive
    # RuntimeError: encrypted; NotImplementedError: an unknown compression; the rest: damaged or cut short
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{part}: not a whole zip ({error}); copy or download it again") from error


def _ink(name: str, content: bytes) -> np.ndarray:
    """One drawing, uint8 [28, 28]: reduced by Lanczos as in the original MAML code, and black made 255."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels; Omniglot has 105x105")
            # Of a 1-bit image Pillow would take the nearest pixel; as "L" it averages.
            small = image.convert("L").resize((CHARACTER_SIZE, CHARACTER_SIZE), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: not one of Omniglot's drawings ({error}); copy or download it again") from error
    return 255 - np.asarray(small)


def _check(counts: Counter[str], characters: list[str]) -> None:
    """Raise UserError unless every character, and no other, has its 20 drawings."""
    wanted = dict.fromkeys(characters, DRAWINGS_PER_CLASS)
    wrong = [name for name in sorted({*counts, *wanted}) if counts[name] != wanted.get(name, 0)]
    if wrong:
        shown = ", ".join(f"{name} has {counts[name]} drawings" for name in wrong[:3])
        more = f" and {len(wrong) - 3} more characters differ" if len(wrong) > 3 else ""
        raise UserError(
            f"Omniglot: {shown}{more}; it has {len(characters)} characters of {DRAWINGS_PER_CLASS} drawings each. "
            f"Copy or download it again"
        )
