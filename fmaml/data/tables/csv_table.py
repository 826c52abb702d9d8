"""Read CSV files as columns of numbers or words. Errors name line and column."""

import codecs
import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import Error, note
from ...files.plain_text import counted
from ...files.regular import read_regular

_MAX_TABLE_BYTES = 1_000_000_000
EMPTY_CELLS = {"", "na", "n/a", "nan", "null", "none", "?", "-"}
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
        near = self.nearest(name)
        cure = f"did you mean {near}?" if near else f"its columns are {', '.join(self.header[:20])}"
        raise Error(f"{setting} = {name}: {self.file} has no such column; {cure}")

    def nearest(self, name: str) -> str | None:
        """The column with the most similar name; None if no name is similar."""
        return next(iter(difflib.get_close_matches(name, self.header, 1)), None)

    def of_rows(self, rows: list[int]) -> "Table":
        """The table of some of its rows."""
        return self._replace(rows=[self.rows[i] for i in rows], lines=[self.lines[i] for i in rows])

    def cells(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for row in self.rows]

    def wrong(self, row: int, index: int, why: str) -> Error:
        """Make the error for a cell."""
        cell = self.rows[row][index]
        shown = "empty" if not cell else repr(cell[:40])
        return Error(f"{self.file}, line {self.lines[row]}, column {self.header[index]}: {shown}: {why}")


def read_csv(path: Path, setting: str, names_for: Callable[[list[str]], list[str] | None] | None = None) -> Table:
    """Read a table with commas, semicolons or tabs; Error, with the line, unless its rows are as wide as its header.

    ``names_for`` returns names of the columns if the first line is a row already. A column without a name is called by
    its number.
    """
    text = _read_text(path, setting)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        first = next(reader, [])
        names = names_for(first) if names_for else None
        header = names or [name.strip() or f"column {i}" for i, name in enumerate(first, 1)]
        _check_header(path, header)
        for row in chain([first] if names else [], reader):
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


def separator_of(text: str) -> str:
    """The separator of columns: the most frequent of comma, semicolon and tab in the first line."""
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _read_text(path: Path, setting: str) -> str:
    """Read a file as text in UTF-8, or in UTF-16 if it begins with the byte order mark."""
    try:
        content = read_regular(path, _MAX_TABLE_BYTES)
    except OSError as error:
        raise Error(f"{setting} = {path}: {error.strerror}; name a CSV file that can be read") from None
    try:
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Error(f"{path}, line {line}: not UTF-8; {_SAVE_AS}") from None


def _check_header(path: Path, header: list[str]) -> None:
    """Raise Error unless the first line has names, all different."""
    if len(header) < 2:
        raise Error(f"{path}, line 1: fewer than two columns; {_SAVE_AS} and decimal points")
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if twice:
        raise Error(f"{path}, line 1: column {twice} is there twice; give each column its own name")
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
    places = {name: index for index, name in enumerate(table.header)}  # tables of genes have 20,000 columns
    indices = [places[name] if name in places else table.position(setting, name) for name in names]
    return np.stack([_column(table, index, setting) for index in indices], 1)


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
    if cell.lower() in EMPTY_CELLS:
        return "no value; fill it in, or delete the line"
    if re.fullmatch(r"[-+]?\d+,\d+", cell):
        return "a number with a comma; write a decimal point"
    if setting == "data.target":
        return "not a finite number; name a column of numbers (of classes 0 and 1, say), or correct it"
    return "not a finite number; correct it, or leave the column out by data.features=[...]"


def numeric_columns(table: Table, without: set[str]) -> list[str]:
    """The names of the columns with at least one number, except those in ``without`` and row numbers.

    A line names the columns that are left out.
    """
    cells = {name: table.cells(index) for index, name in enumerate(table.header) if name not in without}
    counting = [name for name, column in cells.items() if is_row_number(name, column)]
    words = [name for name, column in cells.items() if name not in counting and not any(map(_is_number, column))]
    for names, why in ((counting, "row numbers"), (words, "no numbers")):
        if names:
            note(f"{table.file}: columns left out, {why}: {', '.join(names[:10])}")
    return [name for name in cells if name not in counting and name not in words]


def is_row_number(name: str, cells: list[str]) -> bool:
    """Whether a column only numbers the rows, by its name or since it counts 0, 1, 2, .. or 1, 2, 3, .."""
    if re.fullmatch(r"id|index|rownames?|row|unnamed: \d+", name.lower()):
        return True
    return len(cells) > 2 and any(cells == [str(i + first) for i in range(len(cells))] for first in (0, 1))


def with_values(table: Table, names: list[str]) -> Table:
    """The table without the rows that lack a value in one of the columns; a line counts them."""
    places = [table.header.index(name) for name in names]
    kept = [i for i, row in enumerate(table.rows) if all(row[place].lower() not in EMPTY_CELLS for place in places)]
    if 0 < len(kept) < len(table.rows):
        missing = len(table.rows) - len(kept)
        note(f"{table.file}: {counted(missing, 'row')} left out, without a value in {', '.join(names[:10])}")
        return table.of_rows(kept)
    return table
