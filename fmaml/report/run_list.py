"""`fmaml runs`: the runs below a folder, newest first. Imports no torch."""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from ..checkpoints import run_lock
from ..errors import Error
from ..files.console import CleanConsole
from ..files.plain_text import printable
from ..files.regular import check_regular
from ..files.schema import MetricsRow
from .read_run import PastRun, read_run

DEEPEST = 4  # folders below the one that is listed
MOST_FOLDERS = 20_000
LAST_BYTES = 65_536  # of metrics.jsonl, to search for the last step
HEADINGS = ("run", "algorithm", "data", "steps", "result", "last written", "state")
LEAST_LIST_WIDTH = 100  # columns of a terminal that hold the table


class Listed(NamedTuple):
    """One run in the list, as texts, and the time of its last write."""

    cells: tuple[str, ...]  # in the order of HEADINGS
    written: float


def print_runs(folder: Path) -> None:
    """Print the runs below the folder, newest first; Error if there is no such folder."""
    if not folder.is_dir():
        raise Error(f"{folder}: no such folder; name a folder with runs (default: ./runs)")
    listed = sorted(map(listed_run, run_folders(folder)), key=lambda run: -run.written)
    if not listed:
        print(f"no run in {folder}; `fmaml run EXPERIMENT` writes one")
        return
    console = CleanConsole()
    if console.is_terminal and console.width >= LEAST_LIST_WIDTH:
        table = Table(*HEADINGS)
        for run in listed:
            table.add_row(*run.cells)
        console.print(table)
        return
    for run in listed:  # one a line, for a narrow terminal or another program
        print("  ".join(run.cells))


def run_folders(folder: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """The folders of runs at or below this one, except inside a run; links are not followed."""
    if (folder / "config.yaml").is_file():
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))[:MOST_FOLDERS]
    except OSError:
        return
    for name in below if depth else []:
        yield from run_folders(folder / name, depth - 1)


def listed_run(folder: Path) -> Listed:
    """A line of the list; for a damaged folder, with the error."""
    written = max((_modified(folder / name) for name in ("config.yaml", "metrics.jsonl", "results.json")), default=0.0)
    when = "?"
    try:
        when = datetime.fromtimestamp(written).strftime("%Y-%m-%d %H:%M")
        run = read_run(folder)
    except (Error, OSError, ValueError, OverflowError) as error:  # such as no permission, or a time in the year 10,000
        message = str(error).splitlines()[0].removeprefix(f"{folder}/").removeprefix(f"{folder}: ")
        return Listed((printable(str(folder)), "", "", "", "", when, printable(message)), written)
    config = run.config
    total = (config.get("train") or {}).get("meta_steps", "?") if isinstance(config.get("train"), dict) else "?"
    cells = (
        str(folder),
        config["algorithm"]["name"],
        config["data"]["name"],
        f"{last_logged_step(folder)}/{total}",
        result_of(run),
    )
    return Listed((*map(printable, cells), when, state_of(run)), written)


def result_of(run: PastRun) -> str:
    """The run's main result, such as ``accuracy 82.55% ± 0.79%``; "" before there is one."""
    found = run.first_column()
    return f"{run.metric.name} {run.metric.write(found[1]['mean'], found[1]['ci95'])}" if found else ""


def state_of(run: PastRun) -> str:
    """The state of the run: finished, running or stopped."""
    if run.results is not None:
        return "finished"
    return "running" if run_lock.is_held(run.folder) else "not finished"


def last_logged_step(folder: Path) -> int:
    """The last meta-step in metrics.jsonl; 0 if there is none."""
    path = folder / "metrics.jsonl"
    try:
        check_regular(path)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return 0
    steps = [0]
    for line in lines:
        try:
            steps.append(MetricsRow.checked(json.loads(line)).step)
        except (ValueError, RecursionError):  # an incomplete line, or not a row
            continue
    return max(steps)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
