"""Read a run's folder: settings, results, log, scores of single tasks. Imports no torch."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

from annotated_types import MaxLen
from pydantic import StringConstraints

from ..config.load import read_config
from ..config.settings import Config
from ..errors import Error
from ..files.plain_text import with_interval
from ..files.regular import check_regular, read_regular
from ..files.schema import MetricsRow, Number, Schema, ScoresRow, Text, Whole

MAX_JSON_BYTES = 10_000_000
MAX_LINES_BYTES = 1_000_000_000  # of metrics.jsonl and scores.jsonl
MAX_LINE_BYTES = 10_000_000  # of one of their lines
MOST_ROWS = 10_000  # of one kind in metrics.jsonl; a page or a picture shows fewer points
Columns = dict[str, list[dict[str, float | None]]]  # heading -> mean and ci95 after 0, 1, .. inner steps


class ReportedMetric(NamedTuple):
    """The metric of results.json."""

    name: str
    style: str  # format specification of a value, such as ".2%"
    more_is_better: bool | None = None  # None if the run did not record it

    def write(self, mean: float | None, ci95: float | None = None) -> str:
        """A value as text, with half the width of its interval."""
        return with_interval(mean, ci95, self.style)

    @property
    def is_fraction(self) -> bool:
        """Whether its values are in [0, 1]."""
        return self.style.endswith("%")


class SavedScore(Schema):
    """A mean in results.json, with half the width of its interval."""

    mean: Number | None
    ci95: Number | None


class SavedResults(Schema):
    """The entries of results.json that fmaml reads."""

    results: Annotated[dict[Text, Annotated[list[SavedScore], MaxLen(100_000)]], MaxLen(1000)]
    style: Annotated[str, StringConstraints(pattern=r"^\.\d[%efg]$")] = ".3f"
    metric: Text = "score"
    more_is_better: bool | None = None
    task: Text = ""
    tasks: Whole | None = None
    protocol: Text = ""
    chance: Number | None = None
    training_seconds: Number | None = None


class PastRun(NamedTuple):
    """The contents of a run's folder, which may be unfinished."""

    folder: Path
    config: Config
    results: dict[str, Any] | None  # results.json; None before the run has ended
    environment: dict[str, Any]  # environment.json, {} if it cannot be read

    @property
    def columns(self) -> Columns:
        """The results by inner step."""
        return self.results["results"] if self.results else {}

    @property
    def metric(self) -> ReportedMetric:
        """The metric; "score" without results."""
        results = self.results or {}
        more = results.get("more_is_better")
        name, style = str(results.get("metric", "score")), results.get("style", ".3f")
        return ReportedMetric(name, style, more if isinstance(more, bool) else None)

    def first_column(self) -> tuple[str, dict[str, float | None]] | None:
        """The heading and the last row of the first column: the algorithm after the last inner step."""
        return next(((label, rows[-1]) for label, rows in self.columns.items() if rows), None)


def read_run(folder: Path) -> PastRun:
    """Read a run's folder; Error if it is not a run or is damaged."""
    if not (folder / "config.yaml").is_file():
        reason = "holds no config.yaml" if folder.is_dir() else "no such folder"
        raise Error(f"{folder}: not the folder of a run: {reason}; `fmaml runs` lists the runs")
    config = read_config(folder / "config.yaml")
    named = ("data", "algorithm", "model")
    if not all(isinstance(config.get(key), dict) and isinstance(config[key].get("name"), str) for key in named):
        raise Error(f"{folder / 'config.yaml'}: not the settings of a run; name the folder of another run")
    environment: dict[str, Any] = {}
    with contextlib.suppress(Error):
        environment = _read_object(folder / "environment.json")
    results = _read_object(folder / "results.json") if (folder / "results.json").exists() else None
    try:
        _ = results is None or SavedResults.checked(results)
    except ValueError as error:
        raise Error(f"{folder / 'results.json'}: not the results of a run ({error}); {_cure(folder)}") from None
    return PastRun(folder, config, results, environment)


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; Error if the file is missing or holds something else."""
    try:
        found = json.loads(read_regular(path, MAX_JSON_BYTES))
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}; {_cure(path.parent)}") from None
    except (ValueError, RecursionError):
        raise Error(f"{path}: damaged; {_cure(path.parent)}") from None
    if not isinstance(found, dict):
        raise Error(f"{path}: damaged; {_cure(path.parent)}")
    return found


def _cure(folder: Path) -> str:
    return f"delete the file, and `fmaml resume {folder}` writes it again"


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl in the order of their steps. Of more than `MOST_ROWS` of a kind, rows evenly spread."""
    validations, others = Thinned(), Thinned()
    for row in each_metrics_row(folder):
        (validations if row.get("kind") == "val" else others).add(row)
    return sorted(validations.rows + others.rows, key=lambda row: row["step"])


class Thinned:
    """Some of the rows that are added, evenly spread, and at most `MOST_ROWS`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seen, self.stride = 0, 1

    def add(self, row: dict[str, Any]) -> None:
        """Keep the row, unless its turn is between two that are kept."""
        if self.seen % self.stride == 0:
            self.rows.append(row)
        self.seen += 1
        if len(self.rows) > MOST_ROWS:
            del self.rows[1::2]
            self.stride *= 2


def each_metrics_row(folder: Path) -> Iterator[dict[str, Any]]:
    """The complete rows of metrics.jsonl."""
    for row in _rows(folder / "metrics.jsonl"):
        with contextlib.suppress(ValueError):
            MetricsRow.checked(row)
            yield row


def scores_of_tasks(folder: Path) -> tuple[dict[str, Any], dict[str, dict[int, float]]]:
    """The facts that the scores depend on, and column -> test task -> score after the last inner step.

    NaN stands for a score that was not finite. Returns ({}, {}) if none were saved.
    """
    rows = _rows(folder / "scores.jsonl")
    facts, columns = next(rows, {}), {}
    for row in rows:
        with contextlib.suppress(ValueError, IndexError):
            column, first, end, scores = ScoresRow.checked(row).model_dump().values()
            last = [math.nan if of_task[-1] is None else of_task[-1] for of_task in scores]
            found = dict(zip(range(first, end), last, strict=True))
            columns.setdefault(column, {}).update(found)
    return facts, columns


def read_line(file: BinaryIO, path: Path) -> bytes:
    """The next line of an open file; Error if the disk fails."""
    try:
        return file.readline(MAX_LINE_BYTES)
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}; repair the disk, or use a copy of the file") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file of lines; other lines are skipped, and a missing file is empty."""
    try:
        check_regular(path, MAX_LINES_BYTES)
        file = path.open("rb")
    except OSError:
        return
    with file:
        while line := read_line(file, path):
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row
