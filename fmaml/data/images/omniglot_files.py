"""Read Omniglot's images from zips or unpacked folders, without extracting them."""

import io
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import Error
from ..dataset_facts import DRAWINGS_PER_CLASS
from ..files.cache import FileStamp, file_stamp
from ..files.zips import open_files, zip_or_folder
from ..preprocessing import CHARACTER_FORM
from .decode import open_picture, to_form

OMNIGLOT_PARTS = ("images_background", "images_evaluation")
_ORIGINAL_SIZE = (105, 105)  # pixels
_MAX_DRAWING_BYTES = 20_000  # of a file; the originals have 150 to 700
_MAX_ZIP_BYTES = 20_000_000  # the published zips have 9 and 6 million


def find_omniglot(folder: Path) -> list[Path] | None:
    """Both parts in this folder, each a zip or a folder; None if one is missing."""
    found = [zip_or_folder(folder, part) for part in OMNIGLOT_PARTS]
    return [part for part in found if part] if all(found) else None


def stamp_parts(parts: list[Path]) -> list[FileStamp]:
    """The stamps of all files of the parts. Almost any change of a drawing alters them.

    Names are relative to the parent folder, so that moving it keeps the stamps.
    """
    files = [(part, file) for part in parts for file in ([str(part)] if part.is_file() else _all_files(part))]
    stamps = ((part, *file_stamp(file)) for part, file in files)
    return [(name.removeprefix(str(part.parent)), size, changed) for part, name, size, changed in stamps]


def _all_files(folder: Path) -> list[str]:
    """All files below a folder, sorted; str because 32,460 Path objects would take a second."""
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)


def read_drawings(parts: list[Path], characters: list[str]) -> Tensor:
    """Read all drawings, uint8 [characters, 20, 1, 28, 28], ink 255 on 0. Drawings are sorted by file name.

    ``characters`` are names such as ``images_background/Greek/character01``. Raises Error unless the parts have
    exactly these characters with 20 drawings each, or if a file is damaged.
    """
    drawings = {part: _list_drawings(part) for part in parts}
    _check_counts(Counter(name.rpartition("/")[0] for files in drawings.values() for name, _ in files), characters)
    images = [image for part, files in drawings.items() for image in _read_drawings(part, files)]
    index = {name: i for i, name in enumerate(sorted(characters))}
    by_name = torch.from_numpy(np.stack(images)).unflatten(0, (-1, DRAWINGS_PER_CLASS)).unsqueeze(2)
    return by_name[[index[name] for name in characters]]


def _list_drawings(part: Path) -> list[tuple[str, str]]:
    """List the drawings, sorted: ``part/Alphabet/characterNN/file.png``, and the name in the zip or folder."""
    pattern = re.compile(rf"(?:.*/)?({part.stem}/[^/]+/character\d+/[^/]+\.png)")
    with open_files(part, _MAX_ZIP_BYTES) as (names, _):
        matches = ((pattern.fullmatch(name), name) for name in names)
        return sorted((match[1], name) for match, name in matches if match)


def _read_drawings(part: Path, files: list[tuple[str, str]]) -> list[np.ndarray]:
    """Read the drawings listed by `_list_drawings`."""
    with open_files(part, _MAX_ZIP_BYTES) as (_, read):
        return [_decode_drawing(name, read(file, _MAX_DRAWING_BYTES)) for name, file in files]


def _decode_drawing(name: str, content: bytes) -> np.ndarray:
    """Decode one drawing, uint8 [28, 28]: resized with the Lanczos filter, as in the original MAML code; inverted."""
    try:
        with open_picture(io.BytesIO(content)) as image:
            if image.size != _ORIGINAL_SIZE:
                raise ValueError(f"{image.width}x{image.height} pixels; Omniglot has 105x105")
            return to_form(image, CHARACTER_FORM).values[0]
    except (OSError, ValueError, SyntaxError) as error:
        raise Error(f"{name}: not a drawing of Omniglot ({error}); copy or download it again") from error


def _check_counts(counts: Counter[str], characters: list[str]) -> None:
    """Raise Error unless exactly these characters are there, with 20 drawings each."""
    expected = dict.fromkeys(characters, DRAWINGS_PER_CLASS)
    wrong = [name for name in sorted({*counts, *expected}) if counts[name] != expected.get(name, 0)]
    if wrong:
        first = ", ".join(f"{name} has {counts[name]} drawings" for name in wrong[:3])
        more = f" and {len(wrong) - 3} more characters differ" if len(wrong) > 3 else ""
        raise Error(
            f"Omniglot: {first}{more}; expected {len(characters)} characters of {DRAWINGS_PER_CLASS} drawings each. "
            f"Copy or download it again"
        )
