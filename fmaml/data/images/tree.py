"""The classes of a tree of folders: a folder with images is a class, and its path in the tree is its name."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from .listing import Classes, is_image

_UNSEEN = {"thumbs.db", "desktop.ini"}  # written by file managers
_UNREADABLE_KINDS = {".heic": "HEIC", ".heif": "HEIC", ".hif": "HEIC"}  # suffix -> name of pictures Pillow cannot read
_UNREADABLE_KINDS |= dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"), "raw")


class Skipped(NamedTuple):
    """What lies in a tree and is in no class, each as paths."""

    pictures: list[str]  # of kinds that cannot be decoded
    others: list[str]  # files that are no pictures
    stray: list[str]  # images beside folders of classes
    empty: list[str]  # folders without an image


class Tree(NamedTuple):
    """The classes of a folder, and what else is in it."""

    classes: Classes
    skipped: Skipped


class Entries(NamedTuple):
    """The names in one folder, without hidden ones, sorted."""

    folders: list[str]
    files: list[str]


def read_tree(root: Path) -> Tree:
    """The classes below ``root``: each folder that has images and no folder with images in it, by its path with "/".

    Links are followed, once. UserError for a folder that cannot be read.
    """
    classes: Classes = {}
    skipped = Skipped([], [], [], [])

    def visit(folder: str, name: str, above: frozenset[str]) -> bool:
        """Read one folder; whether there are images in it or below."""
        real = os.path.realpath(folder)
        if real in above:  # a link back to a folder that it is in
            return False
        folders, files = list_entries(folder)
        below = [visit(f"{folder}/{sub}", f"{name}/{sub}" if name else sub, above | {real}) for sub in folders]
        images = [f"{folder}/{file}" for file in files if is_image(file)]
        note_others(folder, files, skipped)
        if any(below) or not name:
            skipped.stray.extend(images)
        elif images:
            classes[name] = images
        elif not folders:
            skipped.empty.append(folder)
        return any(below) or bool(images)

    visit(str(root), "", frozenset())
    return Tree(dict(sorted(classes.items())), skipped)


def list_entries(folder: str) -> Entries:
    """What is in a folder; UserError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make it readable, or name a folder that is") from error
    return Entries([name for name, is_dir in entries if is_dir], [name for name, is_dir in entries if not is_dir])


def note_others(folder: str, files: list[str], skipped: Skipped) -> None:
    """Add the files that are no images to ``skipped``."""
    for file in files:
        if is_undecodable(file):
            skipped.pictures.append(f"{folder}/{file}")
        elif not is_image(file) and file.lower() not in _UNSEEN:
            skipped.others.append(f"{folder}/{file}")


def is_undecodable(file: str) -> bool:
    """Whether the name is that of a picture of a kind that cannot be decoded here, such as HEIC."""
    return os.path.splitext(file)[1].lower() in _UNREADABLE_KINDS


def describe_skipped(skipped: Skipped, root: Path) -> list[str]:
    """A line for each kind of thing that was skipped, with the cure."""
    lines: list[str] = []
    if skipped.pictures:
        kinds = Counter(_UNREADABLE_KINDS[os.path.splitext(file)[1].lower()] for file in skipped.pictures)
        counts = " and ".join(f"{number} {kind}" for kind, number in kinds.items())
        lines.append(
            f"skipped {counts} file{'s' * (len(skipped.pictures) > 1)}, such as {_some(skipped.pictures, root)}: "
            f"they cannot be decoded; save them as JPEG beside the others (`heif-convert IN.HEIC OUT.jpg` does it)"
        )
    if skipped.stray:
        lines.append(
            f"skipped {_count(skipped.stray, 'image')} beside folders of images, such as {_some(skipped.stray, root)}: "
            f"a class is a folder without others in it; move them into a folder of their own to have them used"
        )
    if skipped.empty:
        lines.append(
            f"skipped {_count(skipped.empty, 'folder')} without an image, such as {_some(skipped.empty, root)}; "
            f"put images there, or remove what is no class"
        )
    if skipped.others:
        lines.append(
            f"skipped {_count(skipped.others, 'file')} without the suffix of an image, such as "
            f"{_some(skipped.others, root)}; rename images to .jpg or .png to have them used"
        )
    return lines


def _count(things: list[str], noun: str) -> str:
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


def _some(paths: list[str], root: Path) -> str:
    return os.path.relpath(paths[0], root)
