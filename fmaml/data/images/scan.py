"""List image files: the classes in a tree of folders, and files to skip. Imports no torch."""

import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ...errors import Error

Classes = dict[str, list[str]]  # class -> its files, sorted; str because 60,000 Path objects take a second
Listing = dict[str, Classes]  # split -> its classes

SPLIT_ALIASES = {  # of folders and files, in lower case
    "train": ("train", "training", "train_set", "training_set"),
    "val": ("val", "validation", "valid", "dev", "val_set", "validation_set"),
    "test": ("test", "testing", "test_set"),
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
_UNSEEN = {"thumbs.db", "desktop.ini", "__macosx"}  # written by file managers
_UNREADABLE_KINDS = {".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC"}  # suffix -> format that Pillow cannot read
_UNREADABLE_KINDS[".avif"] = "AVIF"  # not in all builds of Pillow
_UNREADABLE_KINDS |= dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "raw")


class Entries(NamedTuple):
    """The names in one folder, sorted, without hidden files and files of file managers."""

    folders: list[str]
    files: list[str]


class Skipped(NamedTuple):
    """The paths in a tree that belong to no class."""

    pictures: list[str]  # in formats that cannot be decoded
    others: list[str]  # files other than pictures
    stray: list[str]  # images beside folders of classes
    empty: list[str]  # folders without an image


class Tree(NamedTuple):
    """The classes of a folder, and the skipped paths."""

    classes: Classes
    skipped: Skipped


def list_entries(folder: str | Path) -> Entries:
    """List a folder; Error if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            seen = (entry for entry in found if entry.name[0] != "." and entry.name.lower() not in _UNSEEN)
            entries = sorted((entry.name, entry.is_dir()) for entry in seen)
    except OSError as error:
        raise Error(f"{folder}: {error.strerror}; make it readable, or name another folder") from error
    return Entries([name for name, is_dir in entries if is_dir], [name for name, is_dir in entries if not is_dir])


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    ending = suffix(name)
    return ending in IMAGE_SUFFIXES or (ending == ".avif" and reads_avif())


@cache
def reads_avif() -> bool:
    """Whether this build of Pillow reads AVIF."""
    from PIL import features

    return bool(features.check("avif"))


def is_undecodable(name: str) -> bool:
    """Whether a file is a picture in a format that cannot be decoded here, such as HEIC."""
    return suffix(name) in _UNREADABLE_KINDS and not is_image(name)


def suffix(name: str) -> str:
    """The suffix of a file's name, in lower case."""
    return os.path.splitext(name)[1].lower()


def image_files(folder: Path | str) -> list[str]:
    """The image files of one folder, sorted by name; Error if it cannot be read."""
    return [f"{folder}/{name}" for name in list_entries(folder).files if is_image(name)]


def list_pictures(path: Path) -> list[str]:
    """The image files of a folder, sorted by name, or the file itself; Error if there are none."""
    if not path.is_dir():
        if not path.is_file():
            raise Error(f"{path}: {'not a file or a folder' if path.exists() else 'no such file or folder'}")
        return [str(path)]
    found = image_files(path)
    if not found:
        raise Error(f"{path}: no image in it; name a folder with images, or the images themselves")
    return found


def list_class_folders(folder: Path) -> Classes:
    """The images in ``<class>/*``, classes and files sorted by name. Other files are ignored.

    Raises Error if there is no class, or a class without images.
    """
    found = {name: image_files(folder / name) for name in list_entries(folder).folders}
    if not found:
        raise Error(f"{folder}: no class in it; expected a folder of images for each class: {folder}/CLASS/*.png")
    empty = next((name for name, files in found.items() if not files), None)
    if empty is not None:
        raise Error(
            f"{folder / empty}: no image in it, but a class needs some; put files of "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} there, or remove the folder"
        )
    return found


def split_paths(folder: Path, pattern: str = "{}") -> dict[str, Path] | None:
    """Find the path of each split, such as folder/val.csv for pattern "{}.csv"; None unless all three exist."""
    found = {
        split: next((path for alias in aliases if (path := folder / pattern.format(alias)).exists()), None)
        for split, aliases in SPLIT_ALIASES.items()
    }
    return {split: path for split, path in found.items() if path} if all(found.values()) else None


def read_tree(root: Path) -> Tree:
    """Read the classes below ``root``, named by their path with "/".

    A class is a folder with images and without subfolders that have images. Links are followed, but not in circles.
    Raises Error for an unreadable folder.
    """
    classes: Classes = {}
    skipped = Skipped([], [], [], [])

    def visit(folder: str, name: str, above: frozenset[str]) -> bool:
        """Read one folder. Returns whether it or a subfolder has images."""
        real = os.path.realpath(folder)
        if real in above:  # a link to a parent folder
            return False
        folders, files = list_entries(folder)
        below = [visit(f"{folder}/{sub}", f"{name}/{sub}" if name else sub, above | {real}) for sub in folders]
        images = [f"{folder}/{file}" for file in files if is_image(file)]
        skipped.pictures.extend(f"{folder}/{file}" for file in files if is_undecodable(file))
        skipped.others.extend(f"{folder}/{file}" for file in files if not _is_picture(file))
        if any(below) or not name:
            skipped.stray.extend(images)
        elif images:
            classes[name] = images
        elif not folders:
            skipped.empty.append(folder)
        return any(below) or bool(images)

    visit(str(root), "", frozenset())
    return Tree(dict(sorted(classes.items())), skipped)


def _is_picture(name: str) -> bool:
    """Whether a file is a picture in any format."""
    return is_image(name) or is_undecodable(name)


def describe_skipped(skipped: Skipped, root: Path) -> list[str]:
    """Lines that report skipped files, one for each reason, with the cure."""
    pictures, others, stray, empty = skipped
    kinds = Counter(_UNREADABLE_KINDS[suffix(file)] for file in pictures)
    undecodable = " and ".join(f"{number} {kind}" for kind, number in kinds.items())
    every = (
        (
            pictures,
            f"{undecodable} file{'s' * (len(pictures) > 1)}",
            ": they cannot be decoded; save them as JPEG beside the others (`heif-convert IN.HEIC OUT.jpg` does it)",
        ),
        (
            stray,
            f"{_count(stray, 'image')} beside folders of images",
            ": a class is a folder without subfolders; to use them, move them into a folder of their own",
        ),
        (empty, f"{_count(empty, 'folder')} without an image", "; put images there, or remove it"),
        (
            others,
            f"{_count(others, 'file')} without the suffix of an image",
            "; to use images, rename them to .jpg or .png",
        ),
    )
    return [f"skipped {what}, such as {os.path.relpath(paths[0], root)}{cure}" for paths, what, cure in every if paths]


def _count(things: list[str], noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"
