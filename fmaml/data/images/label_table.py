"""Images and their classes from a CSV file with the columns file, label and, where they are split, split."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ...files.regular import check_regular
from .layouts import SPLIT_WORDS, FoundImages, Layout
from .listing import MAX_TABLE_BYTES, Classes, Listing
from .tree import Skipped, describe_skipped, is_undecodable

_HEADER = "file,label or file,label,split"
_COLUMNS = {"file": ("file", "filename", "image_name"), "label": ("label", "class_name"), "split": ("split",)}


class LabelRow(NamedTuple):
    """One line of the table."""

    line: int
    file: str  # its path
    label: str
    split: str  # "" in a table without splits


def read_table(path: Path, layout: Layout) -> FoundImages:
    """The images of a table; files are relative to its folder. ``layout`` "classes" ignores the column split.

    UserError, with the number of the line, for a table that cannot be read, a file that is missing or named twice, a
    row without label, or a split of another name.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path}: no row below its header; give a row {_HEADER} for each image")
    _check_files(path, rows)
    undecodable = [row.file for row in rows if is_undecodable(row.file)]
    lines = describe_skipped(Skipped(undecodable, [], [], []), path.parent)
    found: Listing = {split: {} for split in ("", "train", "val", "test")}
    for row in rows:
        if not is_undecodable(row.file):
            found[row.split].setdefault(row.label, []).append(row.file)
    splits = {split: dict(sorted(part.items())) for split, part in found.items() if part}
    classes: Classes = {}
    for part in splits.values():
        for label, files in part.items():
            classes[label] = [*classes.get(label, []), *files]
    if "" in splits and layout == "splits":
        raise UserError(f"data.layout = splits: {path} has no column split; add one, or give data.layout=auto")
    if "" in splits or layout == "classes":
        return FoundImages(dict(sorted(classes.items())), None, "", lines)
    return FoundImages(classes, splits, "the column split", lines)


def _rows(path: Path) -> Iterator[LabelRow]:
    """The rows below the header; UserError for one that is not of the columns that the header names."""
    lines = _read_lines(path)
    _, header = next(lines, (1, []))
    columns = _find_columns(path, header)
    for line, fields in lines:
        if len(fields) != len(header):
            raise UserError(
                f"{path}: line {line} has {len(fields)} fields, and the header {len(header)}; put a field with a comma "
                f'in quotes, such as "a, b.jpg"'
            )
        file, label, split = (fields[at].strip() if at is not None else "" for at in columns)
        if not file or not label:
            raise UserError(f"{path}: line {line} has no {'label' if file else 'file'}; fill it in, or remove the line")
        if columns[2] is not None and split.lower() not in SPLIT_WORDS:
            raise UserError(f"{path}: line {line}: split is {split!r}; it must be train, val or test")
        yield LabelRow(line, os.path.normpath(path.parent / file), label, SPLIT_WORDS.get(split.lower(), ""))


def _read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the fields of each line that is not empty; UserError if the file is no table in UTF-8."""
    try:
        check_regular(path, MAX_TABLE_BYTES)
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not in UTF-8; save the table as CSV in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a CSV file that can be read") from error
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        yield from ((reader.line_num, fields) for fields in reader if any(field.strip() for field in fields))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; close every quotation mark") from error


def _find_columns(path: Path, header: list[str]) -> tuple[int, int, int | None]:
    """The columns of the file, the label and the split (None if there is none) in the table; UserError if one lacks."""
    names = [name.strip().lower() for name in header]
    file, label, split = (
        next((names.index(word) for word in words if word in names), None) for words in _COLUMNS.values()
    )
    if file is None or label is None:
        found = ",".join(header)[:80] or "empty"
        separator = "; separate the columns by commas" if ";" in found or "\t" in found else ""
        raise UserError(f"{path}: line 1 is {found}; it must name the columns {_HEADER}{separator}")
    return file, label, split


def _check_files(path: Path, rows: list[LabelRow]) -> None:
    """UserError for a file that is missing or that was named before."""
    first: dict[str, LabelRow] = {}
    for row in rows:
        if not os.path.isfile(row.file):
            reason = "no file" if os.path.exists(row.file) else "not there"
            raise UserError(
                f"{path}: line {row.line} names {row.file}, which is {reason}; paths are relative to the table's "
                f"folder: put the file there, or remove the line"
            )
        before = first.setdefault(row.file, row)
        if before is not row:
            what = f"again with label {row.label}, before {before.label}" if row.label != before.label else "again"
            raise UserError(
                f"{path}: line {row.line} names {os.path.basename(row.file)} of line {before.line} {what}; an image is "
                f"in one class, once: remove one of the lines"
            )
