"""Read the layout of a user's images: folders of classes, the same in train, val and test, or a table of files.

A folder "train" with images is a class "train"; with folders of images it is a split. If the layout is ambiguous, a
line says how it was read, and how to choose the other reading.
"""

from collections import Counter
from collections.abc import Collection
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ...errors import Error
from ..source import SPLITS
from .scan import SPLIT_ALIASES, Classes, Listing, describe_skipped, read_tree

Layout: TypeAlias = Literal["auto", "classes", "splits", "merged", "all"]
SPLIT_WORDS = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}  # in lower case
REPEATED = 0.8  # folders that share this fraction of names are parts of one data set


class FoundImages(NamedTuple):
    """The images of a folder or of a table."""

    classes: Classes  # of all splits together
    splits: Listing | None  # one to three splits; None if the layout has none
    origin: str  # of the splits, such as "folders train and test"
    lines: list[str]  # notes for the user


def read_image_folder(root: Path, layout: Layout) -> FoundImages:
    """Read the images below ``root``. Error if there are none, or the folder does not have this layout."""
    classes, skipped = read_tree(root)
    lines = describe_skipped(skipped, root)
    if not classes:
        reasons = "".join(f"; {line}" for line in lines)
        raise Error(
            f"{root}: no class in it; expected a folder of images for each class: {root}/CLASS/*.jpg, to any depth"
            f"{reasons}"
        )
    if layout == "merged":
        return FoundImages(merged_by_name(classes), None, "", lines)
    tops = group_by_top(classes)
    folders = {
        top: SPLIT_WORDS[top.lower()] for top, part in tops.items() if top.lower() in SPLIT_WORDS and "" not in part
    }
    if layout == "splits" and not folders:
        raise Error(
            f"data.layout = splits: {root} has no folder train, val or test with folders of images; "
            f"rename folders, or give data.layout=classes to split classes at random"
        )
    if layout == "classes" or (layout in ("auto", "all") and not are_splits(folders.values(), tops)):
        ambiguous = sorted(folders) or sorted(top for top in tops if top.lower() in SPLIT_WORDS)
        if layout != "classes" and (folders or len(ambiguous) > 1):
            cure = "data.layout=splits reads them as splits" if folders else "a split needs a folder for each class"
            lines = [*lines, f"{root}: {listed(ambiguous)} read as classes, like the other folders; {cure}"]
        if layout != "classes" and (repeated := repeated_name(classes)):
            raise Error(describe_repeated(root, *repeated))
        return FoundImages(classes, None, "", lines)
    return FoundImages(classes, *split_listing(root, tops, folders), lines + left_out(root, tops, folders))


def named_files(folder: Path, files: list[str]) -> Classes:
    """Make each file a class, named after it without suffix; Error if two files have the same name."""
    named = {Path(file).stem: [file] for file in files}
    if len(named) < len(files):
        twice = next(name for name, count in Counter(Path(file).stem for file in files).items() if count > 1)
        raise Error(
            f"{folder}: has two images called {twice}; put the images of each class into a folder named after it"
        )
    return named


def repeated_name(classes: Classes) -> tuple[str, list[str]] | None:
    """Find two places with the same class folders; returns one of the names, and the places.

    They must share three names or more, or all of two. Fewer may be chance, such as Apple/Golden and Pear/Golden.
    """
    names: dict[str, set[str]] = {}  # parent -> the last names of its classes
    for path in classes:
        parent, _, name = path.rpartition("/")
        names.setdefault(parent or ".", set()).add(name)
    for (first, first_names), (second, second_names) in combinations(names.items(), 2):
        shared = first_names & second_names
        least = 2 if first_names == second_names else max(3, REPEATED * min(len(first_names), len(second_names)))
        if len(shared) >= least:
            return min(shared), [first, second]
    return None


def describe_repeated(root: Path, name: str, parents: list[str]) -> str:
    """The error for folders with the same name in several places, such as fold1/cat and fold2/cat."""
    return (
        f"{root}: folders called {name} are in {listed(parents)}; give data.layout=merged if they are one class, "
        f"data.root={root / parents[0]} to read only one place, or data.layout=classes if each folder is a class"
    )


def merged_by_name(classes: Classes) -> Classes:
    """Merge folders with the same name, the last part of the path, to one class."""
    merged: Classes = {}
    for path, files in classes.items():
        merged.setdefault(path.rpartition("/")[2], []).extend(files)
    return dict(sorted(merged.items()))


def group_by_top(classes: Classes) -> dict[str, Classes]:
    """Group classes by top folder, and by the path in it. The path is "" if the top folder is a class."""
    tops: dict[str, Classes] = {}
    for name, files in classes.items():
        top, _, rest = name.partition("/")
        tops.setdefault(top, {})[rest] = files
    return tops


def are_splits(splits: Collection[str], tops: Collection[str]) -> bool:
    """Whether folders named like splits are splits: at least two, or one with no class beside it."""
    return len(set(splits)) > 1 or (len(splits) == 1 and all(top.lower() in SPLIT_WORDS for top in tops))


def split_listing(root: Path, tops: dict[str, Classes], folders: dict[str, str]) -> tuple[Listing, str]:
    """The classes of each split, in order, and the origin of the splits; Error if a split has two folders."""
    by_split = {split: [top for top, its in folders.items() if its == split] for split in SPLITS}
    twice = next((some for some in by_split.values() if len(some) > 1), None)
    if twice:
        raise Error(
            f"{root}: {listed(twice)} are the same split; rename one, or give data.layout=classes to read "
            f"both as classes"
        )
    found = {split: some[0] for split, some in by_split.items() if some}
    listing = {split: tops[top] for split, top in found.items()}
    shorter = {split: without_common_parent(part) for split, part in listing.items()}
    repeated = max(Counter(name for part in shorter.values() for name in part).values()) > 1
    return shorter if repeated else listing, f"folders {listed(list(found))}"


def without_common_parent(classes: Classes) -> Classes:
    """Remove folders that hold all classes from their paths, such as training_set in training_set/cat."""
    firsts = {name.partition("/")[0] for name in classes}
    if len(firsts) > 1 or any("/" not in name for name in classes):
        return classes
    return without_common_parent({name.partition("/")[2]: files for name, files in classes.items()})


def left_out(root: Path, tops: dict[str, Classes], folders: dict[str, str]) -> list[str]:
    """A line that names ignored folders beside the splits, if any."""
    others = sorted(tops.keys() - folders.keys())
    if not others:
        return []
    named = listed(others[:3]) if len(others) <= 3 else f"{', '.join(others[:3])} and {len(others) - 3} more"
    return [
        f"{root}: {listed(sorted(folders))} read as splits, and {named} left out; data.layout=classes makes each "
        f"folder of images a class"
    ]


def listed(names: list[str]) -> str:
    """Names as text, such as "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
