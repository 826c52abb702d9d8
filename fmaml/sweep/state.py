"""The folder of a sweep, and its sweep.json with each run's settings, state and results, without times."""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import MaxLen, Predicate

from ..checkpoints.run_lock import LOCK_FILE, is_held, refuse_if_held
from ..config.config_diff import settings_that_differ
from ..config.settings import Config
from ..errors import Error, Notify
from ..files.atomic import write_text_durably
from ..files.regular import read_regular
from ..files.schema import Schema, Text

SWEEP_FILE = "sweep.json"
MAX_SWEEP_BYTES = 100_000_000
WAIT_S = 120.0  # a run of a killed sweep stops after its current step
FINISHED, FAILED, UNFINISHED = "finished", "failed", "not finished"


@dataclass
class SweepRun:
    """One run of a sweep."""

    folder: str  # the name of its folder, such as "seed=1,inner_lr=0.4"
    settings: dict[str, Any]  # the settings that differ between the runs: dotted key -> value
    config: Config
    exit_code: int | None = None  # of its ended process; None if it was stopped or has not ended
    message: str = ""  # of a failed run
    results: dict[str, Any] = field(default_factory=dict)  # of a finished run, from `results.results_of`

    @property
    def state(self) -> str:
        """Finished, failed or not finished."""
        if self.exit_code is None:
            return UNFINISHED
        return FAILED if self.exit_code else FINISHED


class SavedRun(Schema):
    """A run in sweep.json. Its folder is in the sweep's, so a forged file names no other place."""

    folder: Annotated[Text, Predicate(lambda name: not re.search(r"[/\\\0]|^\.{0,2}$", name))]
    settings: dict[Text, Any]
    config: dict[Text, Any]
    exit_code: int | None
    message: Text


class SavedSweep(Schema):
    """The entries of sweep.json that are read back."""

    name: Text
    device: Text
    runs: Annotated[list[SavedRun], MaxLen(100_000)]


SAVED = ("folder", "settings", "config", "state", "exit_code", "message")


class Sweep(NamedTuple):
    """The runs of one folder."""

    name: str
    device: str
    runs: list[SweepRun]

    def unfinished(self) -> list[SweepRun]:
        """The runs that have not finished, including failed ones."""
        return [run for run in self.runs if run.state != FINISHED]


def write_sweep(folder: Path, sweep: Sweep, summary: list[dict[str, Any]]) -> None:
    """Write sweep.json; ``summary`` are the results over seeds."""
    runs = [{key: getattr(run, key) for key in SAVED} | run.results for run in sweep.runs]
    content = {"name": sweep.name, "device": sweep.device, "runs": runs, "summary": summary}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text_durably(folder / SWEEP_FILE, text + "\n")


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder, without results; Error if its file cannot be read."""
    path = folder / SWEEP_FILE
    try:
        saved = SavedSweep.checked(json.loads(read_regular(path, MAX_SWEEP_BYTES)))
        return Sweep(saved.name, saved.device, [SweepRun(**run.model_dump()) for run in saved.runs])
    except (OSError, ValueError, RecursionError) as error:
        raise Error(
            f"{path}: damaged ({type(error).__name__}); the runs beside it are intact; repeat the command of the "
            f"sweep with another --out, or continue one run with `fmaml resume`"
        ) from None


def merged(saved: Sweep, asked: Sweep, folder: Path) -> Sweep:
    """The requested sweep with the saved states; it may have more runs than the saved one.

    Raises Error if it lacks a saved run, or has other settings for one.
    """
    runs = {run.folder: run for run in asked.runs}
    cure = f"`fmaml resume {folder}` continues the sweep in it; or name another --out"
    for run in saved.runs:
        if run.folder not in runs:
            raise Error(f"--out {folder}: holds the run {run.folder}, which this command does not start; {cure}")
        for key, (was, now) in settings_that_differ([run.config, runs[run.folder].config]).items():
            raise Error(f"--out {folder}: {key}: started with {was}, given {now}; {cure}")
    return asked._replace(runs=[*(runs | {run.folder: run for run in saved.runs}).values()])


def check_sweep_folder(folder: Path, resume: bool) -> None:
    """Raise Error if the folder cannot be used for a sweep."""
    files = {path.name for path in folder.iterdir() if not path.match(f".{SWEEP_FILE}.*.tmp")} - {LOCK_FILE}
    if files and SWEEP_FILE not in files:
        content = "one run" if "config.yaml" in files else "files already"
        raise Error(f"--out {folder}: holds {content}, and no sweep; name a new folder")
    if files and not resume:
        raise Error(f"--out {folder}: holds a sweep already; add --resume to continue it, or name a new folder")


def wait_until_free(folder: Path, notify: Notify, wait_s: float = WAIT_S) -> None:
    """Wait for a run of a killed sweep to stop; Error if it does not."""
    if is_held(folder):
        notify(f"waiting for {folder}: a run of the previous sweep is still stopping")
    end = time.monotonic() + wait_s
    while is_held(folder) and time.monotonic() < end:
        time.sleep(0.05)
    refuse_if_held(folder)
