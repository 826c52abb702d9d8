"""`fmaml compare`: settings and results of several runs, and a paired test if their test tasks are the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ..config.config_diff import settings_that_differ
from ..files.console import CleanConsole
from ..files.plain_text import printable
from .paired import Paired, paired_difference, why_other_tasks
from .read_run import PastRun, metrics_of, read_run, scores_of_tasks

LEAST_WIDTH_OF_A_RUN = 24  # columns of a terminal


class Compared(NamedTuple):
    """One run, compared with the first."""

    run: PastRun
    name: str  # short and unique
    why_not: str  # the reason if there is no paired test; else ""
    differences: dict[str, Paired | None]  # protocol -> this run minus the first; None where a score is not finite


class Comparison(NamedTuple):
    """Several runs; the others are compared with the first."""

    runs: list[Compared]
    settings: dict[str, list[str]]  # dotted key -> its value in each run, if they differ
    rows: list[list[dict[str, Any]]]  # of each run's metrics.jsonl


def compare(folders: Sequence[Path]) -> Comparison:
    """Read the runs and test the differences; Error for a folder that is not a run, or is damaged."""
    runs = [read_run(folder) for folder in folders]
    names = short_names(folders)
    scores = [scores_of_tasks(folder) for folder in folders]
    compared = [Compared(runs[0], names[0], "", {})]
    for run, name, own in zip(runs[1:], names[1:], scores[1:], strict=True):
        compared.append(against_first(runs[0], scores[0], run, own, name))
    settings = settings_that_differ([run.config for run in runs])
    return Comparison(compared, settings, [metrics_of(folder) for folder in folders])


Scores = tuple[dict[str, Any], dict[str, dict[int, float]]]  # the result of `scores_of_tasks`


def against_first(first: PastRun, first_scores: Scores, run: PastRun, scores: Scores, name: str) -> Compared:
    """Compare a run with the first, in each protocol that both have."""
    why = why_other_tasks(first_scores[0], scores[0])
    if not why and (first.results or {}).get("metric") != (run.results or {}).get("metric"):
        why = "the metrics differ, or a run has not finished"
    if why:
        return Compared(run, name, why, {})
    one, two = by_protocol(first, first_scores[1]), by_protocol(run, scores[1])
    differences = {protocol: paired_difference(one[protocol], two[protocol]) for protocol in one if protocol in two}
    return Compared(run, name, "" if differences else "no protocol was tested in both", differences)


def by_protocol(run: PastRun, columns: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """The scores of the run's own algorithm, without its baseline's: protocol -> task -> score."""
    prefix = f"{run.config['algorithm']['name']} "
    return {column.removeprefix(prefix): scores for column, scores in columns.items() if column.startswith(prefix)}


def short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' paths without their common part; repeated runs are numbered."""
    parts = [folder.resolve().parts for folder in folders]
    common = 0
    while all(len(own) > common + 1 for own in parts) and len({own[common] for own in parts}) == 1:
        common += 1
    names = ["/".join(own[common:]) for own in parts]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]


def result_rows(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """The last row of each column of results: heading -> a text for each run."""
    runs = [compared.run for compared in comparison.runs]
    labels = dict.fromkeys(label for run in runs for label in aligned_columns(run))
    found: list[tuple[str, list[str]]] = []
    for label in labels:
        cells: list[str] = []
        for run in runs:
            rows = aligned_columns(run).get(label)
            cells.append(run.metric.write(rows[-1]["mean"], rows[-1]["ci95"]) if rows else "")
        found.append((label, cells))
    return found


def aligned_columns(run: PastRun) -> dict[str, list[dict[str, float | None]]]:
    """The columns of a run, with headings that do not name the algorithm, so that different algorithms share a row."""
    own = str(run.config["algorithm"]["name"])
    return {"adapted" if label == own else label.removeprefix(f"{own}, "): rows for label, rows in run.columns.items()}


def verdict(compared: Compared, first: str, more_is_better: bool | None) -> list[str]:
    """The outcome of the paired test of a run, one sentence for each protocol."""
    if compared.why_not:
        return [f"{compared.name}: no paired test with {first}: {compared.why_not}"]
    lines: list[str] = []
    for protocol, found in compared.differences.items():
        where = f"{compared.name} − {first}, {protocol}"
        if found is None:
            lines.append(f"{where}: no paired test: they share no task, or a score is not finite")
            continue
        text = with_sign(compared.run, found)
        if found.ci95 is None:
            lines.append(f"{where}: {text} on the same task; one task gives no interval")
            continue
        better = "" if more_is_better is None else (", better" if (found.mean > 0) == more_is_better else ", worse")
        holds = f"significant{better}" if found.is_significant else "not significant: 0 is in the interval"
        lines.append(f"{where}: {text} on the same {found.tasks} tasks, {holds}")
    return lines


def with_sign(run: PastRun, found: Paired) -> str:
    """A difference with its sign and half the width of its interval."""
    text = run.metric.write(abs(found.mean), found.ci95)
    return f"{'−' if found.mean < 0 else '+'}{text}"


def verdicts(comparison: Comparison) -> list[str]:
    """The outcomes of all paired tests."""
    first = comparison.runs[0]
    better = first.run.metric.more_is_better
    return [line for compared in comparison.runs[1:] for line in verdict(compared, first.name, better)]


NOTE = (
    "Differences are paired: on each test task, the score of one run minus that of the first; ± is a 95 % interval "
    "over tasks. It compares the two trained models, not training with other seeds. Among many comparisons, one in "
    "twenty is significant by chance."
)


def print_comparison(comparison: Comparison) -> None:
    """Print settings, results and tests as tables, or one line per value if the terminal is too narrow."""
    console = CleanConsole()
    names = [compared.name for compared in comparison.runs]
    print_grid(console, "settings that differ", names, list(comparison.settings.items()))
    print_grid(console, "results, after the last inner step", names, result_rows(comparison))
    for compared in comparison.runs:
        if compared.run.results is None:
            print(f"{compared.run.folder}: has no results yet; `fmaml resume {compared.run.folder}` continues")
    lines = verdicts(comparison)
    for line in [*lines, "", NOTE] if lines else []:
        console.print(printable(line), soft_wrap=not console.is_terminal)


def print_grid(console: Console, title: str, names: list[str], rows: list[tuple[str, list[str]]]) -> None:
    """Print a table with a column for each run."""
    if not rows:
        print(f"{title}: none")
        return
    if console.is_terminal and console.width >= LEAST_WIDTH_OF_A_RUN * (1 + len(names)):
        table = Table("", *map(printable, names), title=title, title_justify="left", highlight=False)
        for column in table.columns:
            column.overflow = "fold"
        for heading, cells in rows:
            table.add_row(*map(printable, (heading, *cells)))
        console.print(table)
        return
    print(title)
    for heading, cells in rows:
        print(printable(f"  {heading}"))
        for name, cell in zip(names, cells, strict=True):
            print(printable(f"    {name}: {cell}"))
