"""Read a run's folder: settings, results, log, scores of single tasks. Imports no torch."""

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config.load import read_config
from ..config.settings import Config
from ..errors import Error
from ..files.plain_text import with_interval
from ..files.regular import read_regular

MAX_JSON_BYTES = 10_000_000
MAX_LINES_BYTES = 1_000_000_000  # of metrics.jsonl and scores.jsonl
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
    if results is not None and not _are_results(results):
        raise Error(f"{folder / 'results.json'}: not the results of a run; {_cure(folder)}")
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


def _are_results(results: dict[str, Any]) -> bool:
    """Whether every column is a list of rows with a mean and an interval."""
    columns = results.get("results")
    style = results.get("style", ".3f")
    if not isinstance(columns, dict) or not isinstance(style, str) or not re.fullmatch(r"\.\d[%efg]", style):
        return False
    rows = [row for column in columns.values() for row in (column if isinstance(column, list) else [None])]
    return all(
        isinstance(row, dict) and all(isinstance(row.get(key), float | int | None) for key in ("mean", "ci95"))
        for row in rows
    )


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The complete rows of metrics.jsonl in the order of their steps."""
    numbers = ("before", "after", "score", "ci95", "tasks_per_second")
    rows = [
        row
        for row in _rows(folder / "metrics.jsonl")
        if isinstance(row.get("step"), int) and all(isinstance(row.get(key), float | int | None) for key in numbers)
    ]
    return sorted(rows, key=lambda row: row["step"])


def scores_of_tasks(folder: Path) -> tuple[dict[str, Any], dict[str, dict[int, float]]]:
    """The facts that the scores depend on, and column -> test task -> score after the last inner step.

    NaN stands for a score that was not finite. Returns ({}, {}) if none were saved.
    """
    rows = _rows(folder / "scores.jsonl")
    facts, columns = next(rows, {}), {}
    for row in rows:
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            numbers = range(int(row["first"]), int(row["end"]))
            last = [scores[-1] for scores in row["scores"]]
            found = {
                task: math.nan if score is None else float(score) for task, score in zip(numbers, last, strict=True)
            }
            columns.setdefault(str(row["column"]), {}).update(found)
    return facts, columns


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file of lines; other lines are skipped, and a missing file is empty."""
    try:
        lines = read_regular(path, MAX_LINES_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                yield row
