"""How a user's folder is laid out: folders train, val and test with classes in them, or classes alone.

A folder called train that has images itself is a class of that name; if folders of images are in it, it is a split.
Where a doubt is left, a line says what was taken, and how to say the other.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ...errors import UserError
from ..source import SPLITS
from .listing import Classes, Listing
from .tree import describe_skipped, read_tree

Layout: TypeAlias = Literal["auto", "classes", "splits"]
SPLIT_WORDS = {"train": "train", "training": "train"}  # in lower case
SPLIT_WORDS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test", "testing": "test"}


class FoundImages(NamedTuple):
    """The images of a folder or of a table."""

    classes: Classes  # of all splits, if they are not split
    splits: Listing | None  # those that there are, one of three at least
    origin: str  # where the splits are from, such as "folders train and test"
    lines: list[str]  # what the user should know


def read_image_folder(root: Path, layout: Layout) -> FoundImages:
    """The images below ``root``. UserError if there are none, or the folder is not laid out as ``layout`` says."""
    classes, skipped = read_tree(root)
    lines = describe_skipped(skipped, root)
    if not classes:
        reasons = "".join(f"; {line}" for line in lines)
        raise UserError(
            f"{root}: no class in it; expected a folder a class, with its images: {root}/CLASS/*.jpg, to any depth"
            f"{reasons}"
        )
    tops = group_by_top(classes)
    folders = {
        top: SPLIT_WORDS[top.lower()] for top, part in tops.items() if top.lower() in SPLIT_WORDS and "" not in part
    }
    if layout == "splits" and not folders:
        raise UserError(
            f"data.layout = splits: {root} has no folder train, val or test with folders of images in it; "
            f"name some so, or give data.layout=classes to have the classes split at random"
        )
    if layout == "classes" or (layout == "auto" and not are_splits(folders.values(), tops)):
        doubt = sorted(folders) or sorted(top for top in tops if top.lower() in SPLIT_WORDS)
        if layout == "auto" and (folders or len(doubt) > 1):
            cure = "data.layout=splits takes them for splits" if folders else "splits need a folder for each class"
            lines = [*lines, f"{root}: {listed(doubt)} taken for classes like the other folders; {cure}"]
        return FoundImages(classes, None, "", lines)
    return FoundImages(classes, *split_listing(root, tops, folders), lines=lines + left_out(root, tops, folders))


def group_by_top(classes: Classes) -> dict[str, Classes]:
    """The folders at the top, and the classes in each by their path from there: "" if it is a class itself."""
    tops: dict[str, Classes] = {}
    for name, files in classes.items():
        top, _, rest = name.partition("/")
        tops.setdefault(top, {})[rest] = files
    return tops


def are_splits(splits: Collection[str], tops: Collection[str]) -> bool:
    """Whether folders called like splits are some: two of the three, or one without any class beside it."""
    return len(set(splits)) > 1 or (len(splits) == 1 and all(top.lower() in SPLIT_WORDS for top in tops))


def split_listing(root: Path, tops: dict[str, Classes], folders: dict[str, str]) -> tuple[Listing, str]:
    """The classes of each split, in order, and where they are from; UserError if a split has two folders."""
    by_split = {split: [top for top, its in folders.items() if its == split] for split in SPLITS}
    twice = next((some for some in by_split.values() if len(some) > 1), None)
    if twice:
        raise UserError(
            f"{root}: {listed(twice)} are the same split; rename one, or give data.layout=classes, which takes both "
            f"for classes"
        )
    found = {split: some[0] for split, some in by_split.items() if some}
    return {split: tops[top] for split, top in found.items()}, f"folders {listed(list(found))}"


def left_out(root: Path, tops: dict[str, Classes], folders: dict[str, str]) -> list[str]:
    """A line that names the folders beside the splits, if there are any."""
    others = sorted(tops.keys() - folders.keys())
    if not others:
        return []
    named = listed(others[:3]) if len(others) <= 3 else f"{', '.join(others[:3])} and {len(others) - 3} more"
    return [
        f"{root}: {listed(sorted(folders))} taken for splits, and {named} left out; data.layout=classes makes each "
        f"folder of images a class"
    ]


def listed(names: list[str]) -> str:
    """The names with commas, and "and" before the last."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
