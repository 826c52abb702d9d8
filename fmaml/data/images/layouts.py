"""How a user's images are laid out: folders of classes, such folders in train, val and test, or a table of files.

A folder called train that has images itself is a class of that name; if folders of images are in it, it is a split.
Where a doubt is left, a line says which was assumed, and how to say the other.
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
REPEATED = 0.8  # the share of two folders' names, from which on they are taken for parts of one data set
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".npz", ".parquet", ".h5", ".hdf5")
_HEADER = "file,label or file,label,split"
_COLUMNS = {"file": ("file", "filename", "image_name"), "label": ("label", "class_name"), "split": ("split",)}


class FoundImages(NamedTuple):
    """The images of a folder or of a table."""

    classes: Classes  # of all splits, if they are not split
    splits: Listing | None  # those that there are, one of three at least
    origin: str  # where the splits are from, such as "folders train and test"
    lines: list[str]  # what the user should know


class ImageColumns(NamedTuple):
    """The places of a table's columns."""

    file: int
    label: int
    split: int | None  # None if there is none


def read_image_folder(root: Path, layout: Layout) -> FoundImages:
    """The images below ``root``. Error if there are none, or the folder is not laid out as ``layout`` says."""
    classes, skipped = read_tree(root)
    lines = describe_skipped(skipped, root)
    if not classes:
        reasons = "".join(f"; {line}" for line in lines)
        raise Error(
            f"{root}: no class in it; expected a folder a class, with its images: {root}/CLASS/*.jpg, to any depth"
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
            f"data.layout = splits: {root} has no folder train, val or test with folders of images in it; "
            f"name some so, or give data.layout=classes to have the classes split at random"
        )
    if layout == "classes" or (layout in ("auto", "all") and not are_splits(folders.values(), tops)):
        doubt = sorted(folders) or sorted(top for top in tops if top.lower() in SPLIT_WORDS)
        if layout != "classes" and (folders or len(doubt) > 1):
            cure = "data.layout=splits takes them for splits" if folders else "splits need a folder for each class"
            lines = [*lines, f"{root}: {listed(doubt)} taken for classes like the other folders; {cure}"]
        if layout != "classes" and (repeated := repeated_name(classes)):
            raise Error(describe_repeated(root, *repeated))
        return FoundImages(classes, None, "", lines)
    return FoundImages(classes, *split_listing(root, tops, folders), lines + left_out(root, tops, folders))


def read_labelled(path: Path, option: str = "--support") -> FoundImages:
    """The pictures of each class in a folder or a table, of whatever split; a folder's own pictures are a class each.

    Such a class is called like its file. Error if there is no picture, or one class has folders in several places.
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
            f"{path}: class {name} is in {listed(parents)}; name the folder to learn from, such as "
            f"{option} {path / parents[0]}"
        )
    return found


def named_files(folder: Path, files: list[str]) -> Classes:
    """A class for each file, called like it without its suffix; Error if two files have one name."""
    named = {Path(file).stem: [file] for file in files}
    if len(named) < len(files):
        twice = next(name for name, count in Counter(Path(file).stem for file in files).items() if count > 1)
        raise Error(f"{folder}: has two images called {twice}; put the images of a class into a folder of its name")
    return named


def repeated_name(classes: Classes) -> tuple[str, list[str]] | None:
    """A name of folders in several places, and these places, if two places have the same three names or more.

    Fewer are chance, such as Apple/Golden and Pear/Golden.
    """
    names: dict[str, set[str]] = {}  # parent -> the last names of its classes
    for path in classes:
        parent, _, name = path.rpartition("/")
        names.setdefault(parent or ".", set()).add(name)
    for (one, its), (other, others) in combinations(names.items(), 2):
        both = its & others
        if len(both) >= max(3, REPEATED * min(len(its), len(others))):
            return min(both), [one, other]
    return None


def describe_repeated(root: Path, name: str, parents: list[str]) -> str:
    """The error for folders of one name in several places, such as fold1/cat and fold2/cat."""
    return (
        f"{root}: folders called {name} are in {listed(parents)}; give data.layout=merged if they are one class, "
        f"data.root={root / parents[0]} to read one place alone, or data.layout=classes if each is a class of its own"
    )


def merged_by_name(classes: Classes) -> Classes:
    """The classes by the last part of their paths: folders of one name are one class."""
    merged: Classes = {}
    for path, files in classes.items():
        merged.setdefault(path.rpartition("/")[2], []).extend(files)
    return dict(sorted(merged.items()))


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
    """The classes of each split, in order, and where they are from; Error if a split has two folders."""
    by_split = {split: [top for top, its in folders.items() if its == split] for split in SPLITS}
    twice = next((some for some in by_split.values() if len(some) > 1), None)
    if twice:
        raise Error(
            f"{root}: {listed(twice)} are the same split; rename one, or give data.layout=classes, which takes both "
            f"for classes"
        )
    found = {split: some[0] for split, some in by_split.items() if some}
    listing = {split: tops[top] for split, top in found.items()}
    shorter = {split: without_common_parent(part) for split, part in listing.items()}
    repeated = max(Counter(name for part in shorter.values() for name in part).values()) > 1
    return shorter if repeated else listing, f"folders {listed(list(found))}"


def without_common_parent(classes: Classes) -> Classes:
    """The classes by their names in the one folder that holds all of them, as in training_set/training_set/cat."""
    firsts = {name.partition("/")[0] for name in classes}
    if len(firsts) > 1 or any("/" not in name for name in classes):
        return classes
    return without_common_parent({name.partition("/")[2]: files for name, files in classes.items()})


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


def read_table(path: Path, layout: Layout) -> FoundImages:
    """The images of a table; files are relative to its folder. ``layout`` "classes" ignores the column split.

    Error, with line and column, for a table that cannot be read, a file that is missing or named twice, a row
    without label, or a split of another name.
    """
    if path.suffix.lower() in ARCHIVES:
        raise Error(f"{path}: is an archive; unpack it, and name the folder that comes out")
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
    """The columns of the file, the label and the split in a table; Error if one of the first two lacks."""
    names = [name.lower() for name in table.header]
    file, label, split = (
        next((names.index(word) for word in words if word in names), None) for words in _COLUMNS.values()
    )
    if file is None or label is None:
        raise Error(f"{table.file}, line 1: {','.join(table.header)[:80]}; it must name the columns {_HEADER}")
    return ImageColumns(file, label, split)


def check_files(path: Path, table: Table, columns: ImageColumns) -> list[str]:
    """The path of each row's file; Error for an empty cell, and a file that is missing or was named before."""
    first: dict[str, int] = {}  # file -> its first row
    for row, cells in enumerate(table.rows):
        for column in columns[:2]:
            if not cells[column]:
                raise table.wrong(row, column, "fill it in, or remove the line")
        file = os.path.normpath(path.parent / cells[columns.file])
        if not os.path.isfile(file):
            why = "no file" if os.path.exists(file) else "not there"
            cure = "paths are relative to the table's folder: put the file there, or remove the line"
            raise table.wrong(row, columns.file, f"{why}; {cure}")
        before = first.setdefault(file, row)
        if before != row:
            seen = f"again, after line {table.lines[before]} with label {table.rows[before][columns.label]}"
            raise table.wrong(row, columns.file, f"{seen}; an image is in one class, once: remove one of the lines")
    return list(first)


def split_of(table: Table, columns: ImageColumns, row: int) -> str:
    """The split of a row, "" in a table without splits; Error if it is called otherwise."""
    if columns.split is None:
        return ""
    split = SPLIT_WORDS.get(table.rows[row][columns.split].lower())
    if split is None:
        raise table.wrong(row, columns.split, "it must be train, val or test")
    return split
