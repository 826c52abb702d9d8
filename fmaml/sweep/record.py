"""sweep.json: what a sweep is to run, how far it has come, and at its end what came of it. Nothing in it is a time."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..files.atomic import write_text_durably
from ..files.regular import read_regular
from .expand import PlannedRun

SWEEP_FILE = "sweep.json"
MAX_SWEEP_BYTES = 100_000_000
FINISHED, FAILED, UNFINISHED = "finished", "failed", "not finished"


class Outcome(NamedTuple):
    """How a run stands, as its process told."""

    state: str = UNFINISHED
    exit_code: int | None = None
    message: str = ""  # of a run that failed


class Sweep(NamedTuple):
    """The runs of one folder, and how each stands."""

    name: str
    device: str
    runs: list[PlannedRun]
    outcomes: dict[str, Outcome]  # by the run's folder


def new_sweep(runs: list[PlannedRun], device: str) -> Sweep:
    """A sweep of which nothing is done."""
    return Sweep(runs[0].config["name"], device, runs, {run.folder: Outcome() for run in runs})


def write_sweep(folder: Path, sweep: Sweep, rows: dict[str, dict[str, Any]], summary: list[dict[str, Any]]) -> None:
    """Write sweep.json; ``rows`` are the results of runs by their folder, ``summary`` those over seeds."""
    runs = [{**run._asdict(), **sweep.outcomes[run.folder]._asdict(), **rows.get(run.folder, {})} for run in sweep.runs]
    content = {"name": sweep.name, "device": sweep.device, "runs": runs, "summary": summary}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text_durably(folder / SWEEP_FILE, text + "\n")


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder; UserError if its file cannot be read."""
    path = folder / SWEEP_FILE
    try:
        saved = json.loads(read_regular(path, MAX_SWEEP_BYTES))
        runs = [PlannedRun(*(row[key] for key in PlannedRun._fields)) for row in saved["runs"]]
        rows = {row["folder"]: Outcome(*(row[key] for key in Outcome._fields)) for row in saved["runs"]}
        return Sweep(str(saved["name"]), str(saved["device"]), runs, rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}); the runs beside it are whole: give the command of the sweep "
            f"again with another --out, or continue one of them by `fmaml resume`"
        ) from None


def merged(saved: Sweep, asked: Sweep, folder: Path) -> Sweep:
    """What was asked for, with what is done of it; a command may ask for more runs than are saved.

    UserError if it has not all of the saved runs, or has them with other settings.
    """
    runs = {run.folder: run for run in asked.runs}
    cure = f"`fmaml resume {folder}` goes on with what it holds; or name another --out"
    for run in saved.runs:
        if run.folder not in runs:
            raise UserError(f"--out {folder}: holds the run {run.folder}, which this command has not; {cure}")
        for key, was, now in differences(run.config, runs[run.folder].config):
            raise UserError(f"--out {folder}: {key}: begun with {was}, given {now}; {cure}")
    return asked._replace(outcomes=asked.outcomes | saved.outcomes)


def differences(saved: Any, given: Any, key: str = "") -> list[tuple[str, str, str]]:
    """(dotted key, its value in one config, in the other) where the two differ."""
    if not isinstance(saved, dict) or not isinstance(given, dict):
        return [] if saved == given else [(key, json.dumps(saved), json.dumps(given))]
    return [
        found
        for part in saved | given
        for found in differences(saved.get(part), given.get(part), f"{key}.{part}" if key else part)
    ]
