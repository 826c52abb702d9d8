"""Which image files belong to which class of which split: out of folders, tables and lists as people have them."""

import csv
import os
from pathlib import Path

from ...errors import UserError

Classes = dict[str, list[str]]  # class -> its files, in order. Strings: 60,000 Path objects would take a second
Listing = dict[str, Classes]  # split -> its classes

SPLITS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}  # names seen in use
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
HEADERS: dict[tuple[str, ...], tuple[int, int]] = {  # -> where the image and the class stand
    ("filename", "label"): (0, 1),
    ("image_name", "class_name"): (0, 1),
    ("class_name", "image_name"): (1, 0),
}


def split_paths(folder: Path, pattern: str = "{}") -> dict[str, Path] | None:
    """The path of each split, such as folder/val.csv for "{}.csv"; None unless all three are there."""
    found = {
        split: next((path for name in names if (path := folder / pattern.format(name)).exists()), None)
        for split, names in SPLITS.items()
    }
    return {split: path for split, path in found.items() if path} if all(found.values()) else None


def from_split_folders(parts: dict[str, Path]) -> Listing:
    """``train/<class>/*`` and so on."""
    return {split: from_classes(part) for split, part in parts.items()}


def from_classes(folder: Path) -> Classes:
    """``<class>/*``, classes and files by name; UserError unless there is a class, and an image in each.

    Files whose names do not end as an image's, and hidden ones, are passed over.
    """
    found = {name: images(folder / name) for name in visible(folder) if (folder / name).is_dir()}
    if not found:
        raise UserError(f"{folder}: no class in it; expected a folder a class, with its images: {folder}/CLASS/*.png")
    for name, files in found.items():
        if not files:
            raise UserError(
                f"{folder / name}: no image in it, and a class needs some; put files of {', '.join(sorted(IMAGES))} "
                f"there, or remove the folder"
            )
    return found


def images(folder: Path) -> list[str]:
    """The image files of one folder, by name."""
    return [f"{folder}/{name}" for name in visible(folder) if os.path.splitext(name)[1].lower() in IMAGES]


def visible(folder: Path) -> list[str]:
    """What lies in a folder, by name, without what is hidden."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name a folder that can be read") from error


def from_tables(tables: dict[str, Path], folder: Path) -> Listing:
    """Each split's csv, its images in ``folder``, or in a folder a class in it."""
    there = {split: table_rows(path) for split, path in tables.items()}
    at_hand = set(visible(folder))
    listing: Listing = {split: {} for split in there}
    for split, rows in there.items():
        for line, (image, label) in enumerate(rows, 2):
            if image not in at_hand:
                image = f"{label}/{image}"
                if not os.path.isfile(f"{folder}/{image}"):
                    raise UserError(
                        f"{tables[split]}: line {line} names {rows[line - 2][0]}, which is not in {folder}; every "
                        f"image of the table must be there: unpack the images again, or take the line out"
                    )
            listing[split].setdefault(label, []).append(f"{folder}/{image}")
    return listing


def table_rows(path: Path) -> list[tuple[str, str]]:
    """Image and label of every line of a csv under a header of known names."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [tuple(field.strip() for field in row) for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table that can be read ({error}); give a csv file in UTF-8") from error
    columns = HEADERS.get(rows[0]) if rows else None
    if columns is None:
        found = ",".join(rows[0]) if rows else "nothing"
        raise UserError(f"{path}: line 1 is {found}; it must be filename,label or class_name,image_name")
    short = next((line for line, row in enumerate(rows, 1) if len(row) < 2), None)
    if short:
        raise UserError(f"{path}: line {short} has one field; every line must have an image and its class")
    image, label = columns
    return [(row[image], row[label]) for row in rows[1:]]


def from_lists(lists: dict[str, list[str]], folder: Path) -> Listing:
    """``folder/<class>/*`` for the classes of each split; UserError for a class without images."""
    return {split: {name: listed(folder, name) for name in names} for split, names in lists.items()}


def listed(folder: Path, name: str) -> list[str]:
    found = images(folder / name) if (folder / name).is_dir() else []
    if not found:
        raise UserError(f"{folder / name}: no image of class {name}; the folder must hold them: unpack the data again")
    return found


def in_order(listing: Listing, names: dict[str, list[str]], what: str, where: Path) -> Listing:
    """The listing with its classes in the order of ``names``; UserError unless they are those very classes."""
    for split, wanted in names.items():
        extra, lacking = sorted(listing[split].keys() - set(wanted)), sorted(set(wanted) - listing[split].keys())
        if extra or lacking:
            said = [f"{word} {', '.join(some[:3])}" for word, some in (("has", extra), ("lacks", lacking)) if some]
            raise UserError(
                f"{where}: split {split} {' and '.join(said)}; {what} has {len(wanted)} fixed classes there. "
                f"Put them right, or for a split of your own take data.name=folder"
            )
    return {split: {name: listing[split][name] for name in wanted} for split, wanted in names.items()}
