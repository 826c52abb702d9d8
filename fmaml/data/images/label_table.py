"""A table of image files and their labels, as data sets publish them: names of columns and paths vary."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import Error
from ...files.plain_text import counted
from ..source import SPLITS
from ..tables.csv_table import EMPTY_CELLS, Table, read_csv
from .layouts import SPLIT_WORDS, FoundImages, Layout, named_files, read_image_folder, repeated_name
from .layouts import listed as joined
from .scan import IMAGE_SUFFIXES, Classes, Listing, Skipped, describe_skipped, is_image, is_undecodable, read_tree

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".npz", ".parquet", ".h5", ".hdf5")
FILE_COLUMNS = ("file", "filename", "imagename", "image", "imageid", "path", "filepath", "imagepath", "img")
LABEL_COLUMNS = ("label", "classname", "class", "classid", "category", "target", "labels", "breed", "species")


class ImageColumns(NamedTuple):
    """The indices of a table's columns."""

    file: int
    label: int
    split: int | None  # None if the table has no such column


class ListedFile(NamedTuple):
    """A row with an image file that exists."""

    row: int
    file: str


def read_table(
    path: Path,
    layout: Layout,
    *,
    file_column: str | None = None,
    label_column: str | None = None,
    strict: bool = False,
) -> FoundImages:
    """Read the images of a table. Files are relative to its folder. ``layout`` "classes" ignores the column split.

    The columns are found by their names unless they are given. Rows with a missing file, a file of an earlier row, or
    no label are left out and counted. Raises Error, with line and column, for an unreadable table or an unknown split.
    If ``strict``, or if no row is left, the first such row is an error, too.
    """
    if path.suffix.lower() in ARCHIVES:
        raise Error(f"{path}: is an archive or a binary table; unpack it and name the folder, or save it as CSV")
    if is_image(path.name):
        raise Error(f"{path}: is one image; name a folder with a folder of images for each class")
    table = read_csv(path, "data.root", lambda first: names_for(path, first))
    columns, lines = find_columns(path, table, file_column, label_column)
    listed, wrong = check_rows(path, table, columns)
    if wrong and (strict or not listed):
        raise wrong[0]
    lines += describe_wrong(wrong)
    found: Listing = {split: {} for split in ("", *SPLITS)}
    for row, file in listed:
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
    undecodable = [file for _, file in listed if is_undecodable(file)]
    lines += describe_skipped(Skipped(undecodable, [], [], []), path.parent)
    if "" in splits or layout == "classes":
        return FoundImages(dict(sorted(classes.items())), None, "", lines)
    return FoundImages(classes, splits, "the column split", lines)


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
            f"{path}: class {name} is in {joined(parents)}; name one of these folders, such as "
            f"{option} {path / parents[0]}, or rename folders that are different classes"
        )
    return found


def names_for(path: Path, first: list[str]) -> list[str] | None:
    """Names of the columns if the first line has none, because it names an image file; else None."""
    if len(first) < 2 or not any(find_file(path, cell.strip()) for cell in first):
        return None
    return [
        "file" if find_file(path, cell.strip()) else "label" if i == 1 else f"column {i}"
        for i, cell in enumerate(first)
    ]


def find_columns(
    path: Path, table: Table, file: str | None = None, label: str | None = None
) -> tuple[ImageColumns, list[str]]:
    """Find the columns, and a line about those that were guessed; Error if file or label is missing."""
    names = [re.sub(r"[^a-z]", "", name.lower()) for name in table.header]
    by_file = table.position("data.file_column", file) if file else first_of(names, FILE_COLUMNS)
    by_label = table.position("data.label_column", label) if label else first_of(names, LABEL_COLUMNS)
    if by_file is None:  # any other column with names of files
        cells = enumerate(table.rows[0])
        by_file = next((i for i, cell in cells if i != by_label and find_file(path, cell)), None)
    if by_file is None or by_label is None:
        missing = "data.file_column" if by_file is None else "data.label_column"
        raise Error(f"{table.file}, line 1: {','.join(table.header)[:80]}; name the column by {missing}=...")
    lines = []
    if (file is None and names[by_file] != "file") or (label is None and names[by_label] != "label"):
        lines = [f"{table.file}: files in the column {table.header[by_file]}, labels in {table.header[by_label]}"]
    return ImageColumns(by_file, by_label, first_of(names, ("split",))), lines


def first_of(names: list[str], words: tuple[str, ...]) -> int | None:
    """The index of the first word that is one of the names."""
    return next((names.index(word) for word in words if word in names), None)


def check_rows(path: Path, table: Table, columns: ImageColumns) -> tuple[list[ListedFile], list[Error]]:
    """The rows with a file and a label, and an error for each other row."""
    first: dict[str, int] = {}  # file -> its first row
    listed, wrong = [], []
    for row, cells in enumerate(table.rows):
        error = next(problems(path, table, columns, row, first), None)
        if error is None:
            file = find_file(path, cells[columns.file]) or ""
            first[file] = row
            listed.append(ListedFile(row, file))
        else:
            wrong.append(error)
    return listed, wrong


def problems(path: Path, table: Table, columns: ImageColumns, row: int, first: dict[str, int]) -> Iterator[Error]:
    """The reasons to leave out a row."""
    cells = table.rows[row]
    for column in columns[:2]:
        if cells[column].lower() in EMPTY_CELLS:
            yield table.wrong(row, column, "fill it in, or remove the line")
    file = find_file(path, cells[columns.file])
    if file is None:
        why = "not a file" if (path.parent / cells[columns.file]).exists() else "not there"
        cure = "paths are relative to the table's folder: put the file there, or remove the line"
        yield table.wrong(row, columns.file, f"{why}; {cure}")
    elif file in first:
        seen = f"again, after line {table.lines[first[file]]} with label {table.rows[first[file]][columns.label]}"
        yield table.wrong(row, columns.file, f"{seen}; an image is in one class, once: remove one of the lines")


def find_file(table: Path, cell: str) -> str | None:
    r"""The image file that a cell names; None if there is none.

    The path may have backslashes, lack the suffix, or begin with folders of another computer, as C:\data\a.jpg does.
    """
    if not cell:
        return None
    path = os.path.normpath(table.parent / cell)
    if os.path.isfile(path):
        return path
    name = cell.replace("\\", "/")
    parts = [part for part in name.split("/") if part]
    elsewhere = name.startswith("/") or re.match(r"[A-Za-z]:/", name)  # of a relative path every folder counts
    for first in range(len(parts)) if elsewhere else (0,):
        tail = os.path.normpath(table.parent.joinpath(*parts[first:]))
        for suffix in ("", *IMAGE_SUFFIXES):
            if os.path.isfile(tail + suffix):
                return tail + suffix
    return None


def describe_wrong(wrong: list[Error]) -> list[str]:
    """A line that counts the rows that were left out, with the first reason."""
    return [f"left out {counted(len(wrong), 'row')}: {wrong[0]}"] if wrong else []


def split_of(table: Table, columns: ImageColumns, row: int) -> str:
    """The split of a row, "" in a table without splits; Error if it is unknown."""
    if columns.split is None:
        return ""
    split = SPLIT_WORDS.get(table.rows[row][columns.split].lower())
    if split is None:
        raise table.wrong(row, columns.split, "it must be train, val or test")
    return split
