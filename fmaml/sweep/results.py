"""The results of a sweep's runs, from their folders, with mean and spread over seeds."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import Error
from ..intervals import t95
from ..report.read_run import each_metrics_row, read_run
from .plan import SEED
from .state import FINISHED, Sweep, SweepRun

COPIED = ("metric", "more_is_better", "style", "results")  # of results.json
Measured = dict[str, Any]  # the results of one run: COPIED, and its best validation


def spread(scores: Sequence[Measured]) -> dict[str, float | None]:
    """The spread over seeds of scores that have a mean over tasks and half the width of its interval, ``ci95``.

    - ``mean``: the mean over seeds,
    - ``sd``: the standard deviation over seeds (n - 1),
    - ``t95``: half the width of the mean's t-interval,
    - ``ci95``: the mean of the intervals over tasks.

    Undefined values are None.
    """
    values = [score["mean"] for score in scores]
    mean, sd, half = finite_mean(values), None, None
    if mean is not None and len(values) > 1:
        sd = statistics.stdev(values)
        half = t95(len(values) - 1) * sd / math.sqrt(len(values))
    return {"mean": mean, "sd": sd, "t95": half, "ci95": finite_mean([score["ci95"] for score in scores])}


def finite_mean(values: Sequence[float | None]) -> float | None:
    """The mean; None without values, or if one is not finite."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def read_results(folder: Path, run: SweepRun) -> None:
    """Read the results of a finished run, once. If they cannot be read, mark the run as failed; it will run again."""
    if run.state == FINISHED and not run.results:
        try:
            run.results = results_of(folder / run.folder)
        except Error as error:
            run.exit_code, run.message = 1, str(error)


def results_of(folder: Path) -> Measured:
    """The results of one run, and its best validation; Error if its files cannot be read."""
    results = read_run(folder).results or {}
    if not results.keys() >= {*COPIED}:
        raise Error(f"{folder}: its results cannot be read; continue the sweep to test it again")
    found = {key: results[key] for key in COPIED}
    return found | {"validation": best_validation(folder, found["more_is_better"])}


def best_validation(folder: Path, more_is_better: bool) -> dict[str, Any] | None:
    """The best score on validation tasks, which belongs to the tested theta; None if there is none."""
    rows = [row for row in each_metrics_row(folder) if row.get("kind") == "val" and row.get("score") is not None]
    best = (max if more_is_better else min)(rows, key=lambda row: row["score"], default=None)
    return best and {"step": best["step"], "mean": best["score"], "ci95": best["ci95"]}


def summarise(sweep: Sweep) -> list[Measured]:
    """One entry for each choice of settings, over all seeds: the finished seeds, and the spread over them.

    The entry with the best score on validation tasks is marked.
    """
    groups: dict[str, list[SweepRun]] = {}
    for run in sweep.runs:
        groups.setdefault(json.dumps(without_seed(run.settings)), []).append(run)
    summary = [entry_of(runs) for runs in groups.values()]
    mark_best(summary)
    return summary


def without_seed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without the seed."""
    return {key: value for key, value in settings.items() if key != SEED}


def entry_of(runs: list[SweepRun]) -> Measured:
    """The entry of runs that differ only in their seeds."""
    done = [run.results for run in runs if run.results]
    seeds = {had: [run.config[SEED] for run in runs if bool(run.results) == had] for had in (True, False)}
    settings = without_seed(runs[0].settings)
    entry = {"settings": settings, "seeds": seeds[True], "missing": seeds[False], "best": False}
    if not done:
        return entry | {"validation": None, "results": {}}
    validations = [results["validation"] for results in done]
    columns = {label: [results["results"].get(label, []) for results in done] for label in done[0]["results"]}
    return entry | {
        **{key: done[0][key] for key in COPIED if key != "results"},
        "validation": spread(validations) if all(validations) else None,
        "results": {label: [spread(scores) for scores in zip(*all_, strict=False)] for label, all_ in columns.items()},
    }


def mark_best(summary: list[Measured]) -> None:
    """Of several entries, mark the one with the best mean on validation tasks, among those with all seeds finished."""
    done = [entry for entry in summary if not entry["missing"] and (entry["validation"] or {}).get("mean") is not None]
    if len(summary) > 1 and len({entry["metric"] for entry in done}) == 1:
        choose = max if done[0]["more_is_better"] else min
        choose(done, key=lambda entry: entry["validation"]["mean"])["best"] = True
