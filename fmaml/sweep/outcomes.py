"""What the runs of a sweep measured, read from their folders, and its mean and spread over seeds."""

import json
import math
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files.regular import read_regular
from .expand import SEED
from .record import FINISHED, Outcome, Sweep
from .statistics import spread

MAX_RESULT_BYTES = 10_000_000
MAX_LOG_BYTES = 1_000_000_000
COPIED = ("metric", "more_is_better", "style", "results")  # of results.json

Measured = dict[str, Any]  # what one run measured: COPIED, and its best validation


def measured(folder: Path, sweep: Sweep) -> dict[str, Measured]:
    """What each finished run measured, by its folder's name; one whose files are gone is to run again."""
    rows: dict[str, Measured] = {}
    for name, outcome in sweep.outcomes.items():
        if outcome.state == FINISHED:
            try:
                rows[name] = row_of(folder / name)
            except UserError:
                sweep.outcomes[name] = Outcome()
    return rows


def row_of(folder: Path) -> Measured:
    """What one run measured; UserError if its files cannot be read."""
    try:
        results = json.loads(read_regular(folder / "results.json", MAX_RESULT_BYTES))
        row = {key: results[key] for key in COPIED}
        return row | {"validation": best_validation(folder / "metrics.jsonl", row["more_is_better"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: its results cannot be read ({error}); continue the sweep to test it again"
        ) from None


def best_validation(path: Path, more_is_better: bool) -> dict[str, Any] | None:
    """The row of the log whose theta was tested: that with the best score on validation tasks, if there is one."""
    rows = [json.loads(line) for line in read_regular(path, MAX_LOG_BYTES).splitlines() if b'"val"' in line]
    rows = [row for row in rows if row["kind"] == "val" and row["score"] is not None]
    if not rows:
        return None
    best = (max if more_is_better else min)(rows, key=lambda row: row["score"])
    return {"step": best["step"], "mean": best["score"], "ci95": best["ci95"]}


def summarise(sweep: Sweep, rows: dict[str, Measured]) -> list[Measured]:
    """One entry for each choice of the settings but the seed: which seeds are done, and the spread over them.

    The entry that did best on validation tasks is marked, if there are several, all done.
    """
    groups: dict[str, Measured] = {}
    for run in sweep.runs:
        settings = without_seed(run.settings)
        group = groups.setdefault(json.dumps(settings), {"settings": settings, "seeds": [], "missing": [], "rows": []})
        done = run.folder in rows
        group["seeds" if done else "missing"].append(run.config[SEED])
        group["rows"] += [rows[run.folder]] if done else []
    summary = [entry_of(**group) for group in groups.values()]
    mark_best(summary)
    return summary


def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings but the seed."""
    return {key: value for key, value in settings.items() if key != SEED}


def entry_of(settings: dict[str, Any], seeds: list[int], missing: list[int], rows: list[Measured]) -> Measured:
    """The entry of one choice of settings."""
    entry = {"settings": settings, "seeds": seeds, "missing": missing, "best": False}
    if not rows:
        return entry | {"validation": None, "results": {}}
    validations = [row["validation"] for row in rows]
    columns = {label: [row["results"].get(label, []) for row in rows] for label in rows[0]["results"]}
    return entry | {
        **{key: rows[0][key] for key in COPIED if key != "results"},
        "validation": spread_of(validations) if all(validations) else None,
        "results": {
            label: [spread_of(scores) for scores in zip(*runs, strict=False)] for label, runs in columns.items()
        },
    }


def spread_of(scores: Any) -> dict[str, float | None]:
    """The spread of one score a seed, each a mean with its interval over tasks."""
    return spread([score["mean"] for score in scores], [score["ci95"] for score in scores])._asdict()


def mark_best(summary: list[Measured]) -> None:
    """Mark the entry with the best mean on validation tasks, where all can be compared."""
    means = [entry["validation"] and entry["validation"]["mean"] for entry in summary]
    known = [(entry, mean) for entry, mean in zip(summary, means, strict=True) if mean is not None]
    known = [(entry, mean) for entry, mean in known if not entry["missing"] and math.isfinite(mean)]
    if len(summary) < 2 or not known or len({entry["metric"] for entry, _ in known}) > 1:
        return
    choose = max if known[0][0]["more_is_better"] else min
    choose(known, key=lambda pair: pair[1])[0]["best"] = True
