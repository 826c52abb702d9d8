"""Read CSV files as columns of numbers or words. Errors name line and column."""

import csv
import difflib
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import Error
from ...files.regular import read_regular

_MAX_TABLE_BYTES = 1_000_000_000
_NO_VALUE = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
_SAVE_AS = "save it as CSV with commas, in UTF-8"

Array = np.ndarray[Any, Any]


class Table(NamedTuple):
    """The cells of a file, row by row, without header and empty lines."""

    file: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]  # the line number of each row's end in the file

    def position(self, setting: str, name: str) -> int:
        """The index of the column ``name``, the value of ``setting``; Error if there is none."""
        if name in self.header:
            return self.header.index(name)
        near = difflib.get_close_matches(name, self.header, 1)
        cure = f"did you mean {near[0]}?" if near else f"its columns are {', '.join(self.header[:20])}"
        raise Error(f"{setting} = {name}: {self.file} has no such column; {cure}")

    def cells(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for row in self.rows]

    def wrong(self, row: int, index: int, why: str) -> Error:
        """Make the error for a cell."""
        cell = self.rows[row][index]
        shown = "empty" if not cell else repr(cell[:40])
        return Error(f"{self.file}, line {self.lines[row]}, column {self.header[index]}: {shown}: {why}")


def read_csv(path: Path, setting: str) -> Table:
    """Read a table; Error, with the line, unless it is CSV with a header and rows of the same width."""
    reader = csv.reader(io.StringIO(_read_text(path, setting), newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for row in reader:
            if len(row) not in (0, len(header)):
                raise Error(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header has {len(header)}; correct the "
                    f"line (a cell with a comma needs quotes)"
                )
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise Error(f"{path}, line {reader.line_num}: {error}; {_SAVE_AS}") from None
    if not rows:
        raise Error(f"{path}: no row after the header; give a table with rows")
    return Table(str(path), header, rows, lines)


def _read_text(path: Path, setting: str) -> str:
    """Read a file as UTF-8 text, without byte order mark."""
    try:
        content = read_regular(path, _MAX_TABLE_BYTES)
    except OSError as error:
        raise Error(f"{setting} = {path}: {error.strerror}; name a CSV file that can be read") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Error(f"{path}, line {line}: not UTF-8; {_SAVE_AS}") from None


def _check_header(path: Path, header: list[str]) -> None:
    """Raise Error unless the first line has names, all different."""
    if len(header) < 2:
        found = next((name for sign, name in ((";", "semicolons"), ("\t", "tabs")) if sign in "".join(header)), "")
        why = f"its columns are separated by {found}" if found else "fewer than two columns"
        raise Error(f"{path}, line 1: {why}; {_SAVE_AS} and decimal points")
    if "" in header:
        raise Error(f"{path}, line 1: column {header.index('') + 1} has no name; give it one")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise Error(f"{path}, line 1: column {twice[0]} is there twice; give each column its own name")
    if all(_is_number(name) for name in header):
        raise Error(f"{path}, line 1: numbers instead of column names; add a line with names above them")


def _is_number(cell: str) -> bool:
    try:
        return np.isfinite(float(cell)).item()
    except ValueError:
        return False


def words(table: Table, setting: str, name: str) -> list[str]:
    """Read the column ``name`` as words; Error for an empty cell."""
    index = table.position(setting, name)
    cells = table.cells(index)
    if "" in cells:
        raise table.wrong(cells.index(""), index, f"{setting} = {name} needs a word in each line; fill it in")
    return cells


def numbers(table: Table, setting: str, names: list[str]) -> Array:
    """Read columns as float64 [rows, columns]; Error for the first cell that is not a finite number."""
    return np.stack([_column(table, table.position(setting, name), setting) for name in names], 1)


def _column(table: Table, index: int, setting: str) -> Array:
    cells = table.cells(index)
    try:
        column = np.array(cells, dtype=np.float64)
    except ValueError:
        column = np.array([float(cell) if _is_number(cell) else np.nan for cell in cells])
    if not np.isfinite(column).all():
        row = int((~np.isfinite(column)).argmax())
        raise table.wrong(row, index, _why_no_number(cells[row], setting))
    return column


def _why_no_number(cell: str, setting: str) -> str:
    if cell.lower() in _NO_VALUE:
        return "no value; fill it in, or delete the line"
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        return "a number with a comma; write a decimal point"
    if setting == "data.target":
        return "not a finite number; name a column of numbers (of classes 0 and 1, say), or correct it"
    return "not a finite number; correct it, or leave the column out by data.features=[...]"


def numeric_columns(table: Table, without: set[str]) -> list[str]:
    """The names of the columns with at least one number, except those in ``without``."""
    found = [name for name in table.header if name not in without]
    return [name for name in found if any(map(_is_number, table.cells(table.header.index(name))))]
