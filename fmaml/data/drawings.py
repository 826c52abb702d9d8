"""Omniglot's image files, from its zips or from unpacked folders. Nothing is extracted: no file is ever written."""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .characters import DRAWINGS, SIZE

PARTS = ("images_background", "images_evaluation")
PIXELS = (105, 105)  # of an original drawing
LARGEST = 100_000  # bytes; an original drawing has some 300

_NAME = re.compile(r"(?:^|/)((images_background|images_evaluation)/[^/]+/character\d+)/([^/]+\.png)$")


def locate(folder: Path) -> list[Path] | None:
    """Both parts in this folder, each a zip or a folder; None if one is not there.

    The zip is preferred: it is whole or broken, while a folder may be left from an unpacking that was cut short.
    """
    found = [_part(folder / part) for part in PARTS]
    return [part for part in found if part] if all(found) else None


def _part(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".zip")
    return zipped if zipped.is_file() else path if path.is_dir() else None


def state(parts: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of change of every file: differs whenever the drawings may have changed."""
    files = (file for part in parts for file in ([part] if part.is_file() else sorted(part.rglob("*.png"))))
    return [("/".join(file.parts[-3:]), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


def read(parts: Iterable[Path], characters: list[str]) -> Tensor:
    """All drawings as uint8 [characters, 20, 1, 28, 28], ink 255 on 0; drawings in the order of their file names.

    Raises UserError unless there are exactly these characters with 20 drawings each.
    """
    files = {name: content for part in parts for name, content in _contents(part)}
    names = sorted(files)
    _check(Counter(_character(name) for name in names), characters)
    by_name = np.stack([_ink(name, files[name]) for name in names])
    by_character = torch.from_numpy(by_name).unflatten(0, (-1, DRAWINGS))
    order = {character: place for place, character in enumerate(sorted(characters))}
    return by_character[[order[character] for character in characters]].unsqueeze(2)


def _character(name: str) -> str:
    return name.rpartition("/")[0]


def _contents(part: Path) -> Iterator[tuple[str, bytes]]:
    """``part/Alphabet/characterNN/file.png`` and its bytes, for every drawing."""
    if part.is_dir():
        for file in part.rglob("*.png"):
            yield "/".join(file.parts[-4:]), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(part) as archive:
            for entry in archive.infolist():
                if (match := _NAME.search(entry.filename)) and not entry.is_dir():
                    if entry.file_size > LARGEST:
                        raise UserError(_broken(part, f"{entry.filename} has {entry.file_size} bytes"))
                    yield f"{match[1]}/{match[3]}", archive.read(entry)
    # RuntimeError: encrypted; NotImplementedError: an unknown compression; zlib errors and a file cut short besides
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise UserError(_broken(part, error)) from error


def _broken(part: Path, reason: object) -> str:
    return f"{part}: not a whole Omniglot file ({reason}); delete it and run again to download it, or copy it again"


def _ink(name: str, content: bytes) -> np.ndarray:
    """One drawing as uint8 [28, 28]: black ink to 255, reduced by Lanczos as in the original MAML code."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != PIXELS:
                raise ValueError(f"{image.size[0]}x{image.size[1]} pixels where Omniglot has 105x105")
            # Without "L" Pillow would reduce a 1-bit image by taking the nearest pixel.
            small = image.convert("L").resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name}: not a readable drawing ({error}); fetch Omniglot again") from error
    return 255 - np.asarray(small)


def _check(counts: Counter[str], characters: list[str]) -> None:
    """Raise UserError unless every character, and no other, has its 20 drawings."""
    wrong = [
        name for name in sorted({*counts, *characters}) if counts[name] != DRAWINGS * (name in characters)
    ]
    if wrong:
        shown = ", ".join(f"{name} has {counts[name]}" for name in wrong[:3])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"Omniglot: {shown}{more}; it has {len(characters)} characters with {DRAWINGS} drawings each; "
            f"fetch the files again"
        )
