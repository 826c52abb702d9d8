"""Read the layout of a user's images: folders of classes, the same in train, val and test, or a table of files.

A folder "train" with images is a class "train"; with folders of images it is a split. If the layout is ambiguous, a
line says how it was read, and how to choose the other reading.
"""

import os
from collections import Counter
from collections.abc import Collection
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from ...errors import Error
from ..source import SPLITS
from ..tables.csv_table import Table, read_csv
from .scan import SPLIT_ALIASES, Classes, Listing, Skipped, describe_skipped, is_image, is_undecodable, read_tree

Layout: TypeAlias = Literal["auto", "classes", "splits", "merged", "all"]
SPLIT_WORDS = {alias: split for split, aliases in SPLIT_ALIASES.items() for alias in aliases}  # in lower case
REPEATED = 0.8  # folders that share this fraction of names are parts of one data set
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".npz", ".parquet", ".h5", ".hdf5")
_HEADER = "file,label or file,label,split"
_COLUMNS = {"file": ("file", "filename", "image_name"), "label": ("label", "class_name"), "split": ("split",)}


class FoundImages(NamedTuple):
    """The images of a folder or of a table."""

    classes: Classes  # of all splits together
    splits: Listing | None  # one to three splits; None if the layout has none
    origin: str  # of the splits, such as "folders train and test"
    lines: list[str]  # notes for the user


class ImageColumns(NamedTuple):
    """The indices of a table's columns."""

    file: int
    label: int
    split: int | None  # None if there is none


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


def read_labelled(path: Path, option: str = "--support") -> FoundImages:
    """Read the pictures of each class in a folder or a table. Splits are ignored.

    If the folder has pictures but no folders of pictures, each picture is a class, named after its file. Raises Error
    if there is no picture, or one class has folders in several places.
    """
    if path.is_file():
        return read_table(path, "classes")
    if not path.is_dir():
        raise Error(f"{path}: no such file or folder; give a folder with a folder of images for each class")
    tree = read_tree(path)
    if not tree.classes and tree.skipped.stray:
        skipped = tree.skipped._replace(stray=[])
        return FoundImages(named_files(path, tree.skipped.stray), None, "", describe_skipped(skipped, path))
    found = read_image_folder(path, "classes")
    if repeated := repeated_name(found.classes):
        name, parents = repeated
        raise Error(
            f"{path}: class {name} is in {listed(parents)}; name one of these folders, such as "
            f"{option} {path / parents[0]}"
        )
    return found


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

    They must share three names or more. Fewer may be chance, such as Apple/Golden and Pear/Golden.
    """
    names: dict[str, set[str]] = {}  # parent -> the last names of its classes
    for path in classes:
        parent, _, name = path.rpartition("/")
        names.setdefault(parent or ".", set()).add(name)
    for (first, first_names), (second, second_names) in combinations(names.items(), 2):
        shared = first_names & second_names
        if len(shared) >= max(3, REPEATED * min(len(first_names), len(second_names))):
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


def read_table(path: Path, layout: Layout) -> FoundImages:
    """Read the images of a table. Files are relative to its folder. ``layout`` "classes" ignores the column split.

    Raises Error, with line and column, for an unreadable table, a missing or repeated file, an empty label, or an
    unknown split.
    """
    if path.suffix.lower() in ARCHIVES:
        raise Error(f"{path}: is an archive; unpack it, and name the unpacked folder")
    if is_image(path.name):
        raise Error(f"{path}: is one image; name a folder with a folder of images for each class")
    table = read_csv(path, "data.root")
    columns = find_columns(table)
    files = check_files(path, table, columns)
    found: Listing = {split: {} for split in ("", *SPLITS)}
    for row, file in enumerate(files):
        if not is_undecodable(file):
            label, split = table.rows[row][columns.label], split_of(table, columns, row)
            found[split].setdefault(label, []).append(file)
    splits = {split: dict(sorted(part.items())) for split, part in found.items() if part}
    classes: Classes = {}
    for part in splits.values():
        for label, own in part.items():
            classes[label] = [*classes.get(label, []), *own]
    if "" in splits and layout == "splits":
        raise Error(f"data.layout = splits: {path} has no column split; add one, or give data.layout=auto")
    lines = describe_skipped(Skipped([file for file in files if is_undecodable(file)], [], [], []), path.parent)
    if "" in splits or layout == "classes":
        return FoundImages(dict(sorted(classes.items())), None, "", lines)
    return FoundImages(classes, splits, "the column split", lines)


def find_columns(table: Table) -> ImageColumns:
    """Find the columns file, label and split of a table; Error if file or label is missing."""
    names = [name.lower() for name in table.header]
    file, label, split = (
        next((names.index(word) for word in words if word in names), None) for words in _COLUMNS.values()
    )
    if file is None or label is None:
        raise Error(f"{table.file}, line 1: {','.join(table.header)[:80]}; it must name the columns {_HEADER}")
    return ImageColumns(file, label, split)


def check_files(path: Path, table: Table, columns: ImageColumns) -> list[str]:
    """The path of each row's file; Error for an empty cell, and a file that is missing or listed twice."""
    first: dict[str, int] = {}  # file -> its first row
    for row, cells in enumerate(table.rows):
        for column in columns[:2]:
            if not cells[column]:
                raise table.wrong(row, column, "fill it in, or remove the line")
        file = os.path.normpath(path.parent / cells[columns.file])
        if not os.path.isfile(file):
            why = "not a file" if os.path.exists(file) else "not there"
            cure = "paths are relative to the table's folder: put the file there, or remove the line"
            raise table.wrong(row, columns.file, f"{why}; {cure}")
        before = first.setdefault(file, row)
        if before != row:
            seen = f"again, after line {table.lines[before]} with label {table.rows[before][columns.label]}"
            raise table.wrong(row, columns.file, f"{seen}; an image is in one class, once: remove one of the lines")
    return list(first)


def split_of(table: Table, columns: ImageColumns, row: int) -> str:
    """The split of a row, "" in a table without splits; Error if it is unknown."""
    if columns.split is None:
        return ""
    split = SPLIT_WORDS.get(table.rows[row][columns.split].lower())
    if split is None:
        raise table.wrong(row, columns.split, "it must be train, val or test")
    return split
