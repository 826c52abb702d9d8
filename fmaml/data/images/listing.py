"""Which image files belong to which class of which split, from the common layouts of folders, tables and lists."""

import csv
import os
from pathlib import Path
from typing import TypeVar

from ...errors import UserError
from ...regular_files import check_regular

Classes = dict[str, list[str]]  # class -> its files, in order; str because 60,000 Path objects would take a second
Listing = dict[str, Classes]  # split -> its classes
Files = TypeVar("Files")  # of a class, however they are named

SPLIT_ALIASES = {  # of folders and files
    "train": ("train",),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test",),
}
MAX_TABLE_BYTES = 100_000_000
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
_CSV_COLUMNS: dict[tuple[str, ...], tuple[int, int]] = {  # header -> columns of the image and of the class
    ("filename", "label"): (0, 1),
    ("image_name", "class_name"): (0, 1),
    ("class_name", "image_name"): (1, 0),
}


def split_paths(folder: Path, pattern: str = "{}") -> dict[str, Path] | None:
    """The existing path of each split, such as folder/val.csv for pattern "{}.csv"; None unless all three exist."""
    found = {
        split: next((path for alias in aliases if (path := folder / pattern.format(alias)).exists()), None)
        for split, aliases in SPLIT_ALIASES.items()
    }
    return {split: path for split, path in found.items() if path} if all(found.values()) else None


def list_split_folders(folders: dict[str, Path]) -> Listing:
    """The images of ``train/<class>/*`` and so on, from the folder of each split. Errors as in `list_class_folders`."""
    return {split: list_class_folders(folder) for split, folder in folders.items()}


def list_class_folders(folder: Path) -> Classes:
    """The images of ``<class>/*``, classes and files sorted by name; hidden files and other files are ignored.

    UserError unless there is at least one class, and at least one image in each class.
    """
    found = {name: image_files(folder / name) for name in _visible_names(folder) if (folder / name).is_dir()}
    if not found:
        raise UserError(f"{folder}: no class in it; expected a folder a class, with its images: {folder}/CLASS/*.png")
    for name, files in found.items():
        if not files:
            suffixes = ", ".join(sorted(_IMAGE_SUFFIXES))
            raise UserError(
                f"{folder / name}: no image in it, and a class needs some; put files of {suffixes} "
                f"there, or remove the folder"
            )
    return found


def list_pictures(path: Path) -> list[str]:
    """The image files of a folder, sorted by name, or the file itself; UserError if there are none."""
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path}: {'not a file or a folder' if path.exists() else 'no such file or folder'}")
        return [str(path)]
    found = image_files(path)
    if not found:
        raise UserError(f"{path}: no image in it; name a folder with images, or the images themselves")
    return found


def image_files(folder: Path) -> list[str]:
    """The image files of one folder, sorted by name."""
    return [f"{folder}/{name}" for name in _visible_names(folder) if is_image(name)]


def is_image(name: str) -> bool:
    """Whether a file of that name is an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES


def _visible_names(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones. UserError if the folder cannot be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name a folder that can be read") from error


def list_tables(tables: dict[str, Path], folder: Path) -> Listing:
    """The images named by each split's CSV file; they are in ``folder`` or in a subfolder for each class.

    UserError for a table that cannot be read or an image that does not exist.
    """
    rows = {split: _read_table(path) for split, path in tables.items()}
    names = set(_visible_names(folder))
    listing: Listing = {split: {} for split in rows}
    for split, pairs in rows.items():
        for line, (image, label) in enumerate(pairs, 2):
            path = image if image in names else f"{label}/{image}"
            if image not in names and not os.path.isfile(f"{folder}/{path}"):
                raise UserError(
                    f"{tables[split]}: line {line} names {image}, which is not in {folder}; every "
                    f"image of the table must be there: unpack the images again, or take the line out"
                )
            listing[split].setdefault(label, []).append(f"{folder}/{path}")
    return listing


def _read_table(path: Path) -> list[tuple[str, str]]:
    """The (image, label) pairs of a CSV file. UserError unless its header is one of `_CSV_COLUMNS`."""
    try:
        check_regular(path, MAX_TABLE_BYTES)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [tuple(field.strip() for field in row) for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table that can be read ({error}); give a csv file in UTF-8") from error
    columns = _CSV_COLUMNS.get(rows[0]) if rows else None
    if columns is None:
        found = ",".join(rows[0]) if rows else "nothing"
        raise UserError(f"{path}: line 1 is {found}; it must be filename,label or class_name,image_name")
    short = next((line for line, row in enumerate(rows, 1) if len(row) < 2), None)
    if short:
        raise UserError(f"{path}: line {short} has one field; every line must have an image and its class")
    image, label = columns
    return [(row[image], row[label]) for row in rows[1:]]


def list_classes(names: dict[str, list[str]], folder: Path) -> Listing:
    """The images of ``folder/<class>/*`` for the classes named for each split. UserError for one without images."""
    return {split: {name: _list_class(folder, name) for name in part} for split, part in names.items()}


def _list_class(folder: Path, name: str) -> list[str]:
    found = image_files(folder / name) if (folder / name).is_dir() else []
    if not found:
        raise UserError(f"{folder / name}: no image of class {name}; the folder must hold them: unpack the data again")
    return found


def order_classes(
    listing: dict[str, dict[str, Files]], names: dict[str, list[str]], data: str, path: Path
) -> dict[str, dict[str, Files]]:
    """The listing with its classes in the order of ``names``. UserError unless each split has exactly those classes.

    ``data`` is the data set and ``path`` where the listing is from, both for messages.
    """
    for split, expected in names.items():
        extra = sorted(listing[split].keys() - set(expected))
        absent = sorted(set(expected) - listing[split].keys())
        if extra or absent:
            parts = [f"{verb} {', '.join(some[:3])}" for verb, some in (("has", extra), ("lacks", absent)) if some]
            raise UserError(
                f"{path}: split {split} {' and '.join(parts)}; {data} has {len(expected)} fixed classes there. "
                f"Put them right, or for a split of your own take data.name=folder"
            )
    return {split: {name: listing[split][name] for name in expected} for split, expected in names.items()}
