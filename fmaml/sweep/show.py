"""The output of a sweep: a line for each finished run, a bar for each running one, and a final table over seeds."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from ..files.plain_text import minutes_and_seconds, with_interval
from ..report.run_list import last_logged_step
from .plan import short_text
from .results import Measured, without_seed
from .state import FAILED, UNFINISHED, Sweep, SweepRun

LEAST_WIDTH = 80  # columns: in a narrower terminal the numbers beside a bar would be cut
ANY_WIDTH = 10_000  # columns
BEST = "*"
OVER_SEEDS = (
    "± is the 95 % t-interval of the mean over seeds; sd is the standard deviation over seeds; "
    "tasks ± is the 95 % interval over the tasks of one run"
)
OVER_TASKS = "± is the 95 % interval over the tasks of the run"
CHOSEN = f"{BEST} is the best row on validation tasks, among rows with all seeds; the other columns are unseen tasks"


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, soft_wrap=True)


class SweepProgress(Progress):
    """Shows the progress of the runs; a context manager, open while they run."""

    def __init__(self, console: Console, folder: Path, total: int) -> None:
        """Show ``total`` runs in ``folder``."""
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="ellipsis", no_wrap=True)),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.width < LEAST_WIDTH,
        )
        self.folder, self.total, self.ended = folder, total, 0

    def begin(self, run: SweepRun) -> None:
        """Show that a run has started."""
        self.add_task(run.folder, total=run.config["train"]["meta_steps"])
        if not self.console.is_terminal:
            say(self.console, f"{run.folder}: started")

    def look(self) -> None:
        """Move the bars to the last logged step of each run."""
        for bar in [] if self.disable else self.tasks:
            self.update(bar.id, completed=last_logged_step(self.folder / bar.description))

    def end(self, run: SweepRun) -> None:
        """Show that a run has ended, with its result."""
        (bar,) = (bar for bar in self.tasks if bar.description == run.folder)
        self.remove_task(bar.id)
        if run.state == UNFINISHED:
            return say(self.console, f"{run.folder}: stopped")
        self.ended += 1
        outcome = f"failed: {run.message}" if run.state == FAILED else last_scores(run.results)
        duration = minutes_and_seconds(bar.elapsed or 0)
        say(self.console, f"{self.ended}/{self.total}  {run.folder}: {outcome}  in {duration}")


def last_scores(results: Measured) -> str:
    """The scores of a run after its last inner step, on one line."""
    scores = {label.partition(" (")[0]: column[-1]["mean"] for label, column in results["results"].items()}
    texts = [f"{label} {with_interval(mean, None, results['style'])}" for label, mean in scores.items()]
    return f"{results['metric']} {', '.join(texts)}"


def print_sweep(console: Console, sweep: Sweep, summary: list[Measured]) -> None:
    """Print the table, or its lines if the console is too narrow; then the failed runs with their messages."""
    rows = [cells(sweep, entry) for entry in summary]
    title, notes = f"{sweep.name}: results on unseen tasks after the last inner step", caption(summary)
    table = Table(title=title, caption="\n".join(notes), title_justify="left", caption_justify="left")
    table.show_lines = any(len(entry["seeds"]) > 1 for entry in summary)  # such rows have several lines
    for heading in dict.fromkeys(heading for row in rows for heading in row):
        table.add_column(heading, justify="right" if table.columns else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(str(column.header), "") for column in table.columns))
    if Measurement.get(console, console.options.update(width=ANY_WIDTH), table).maximum <= console.width:
        console.print(table)
    else:
        say(console, "\n".join([title, *(line for row in rows for line in lines_of(row)), *notes]))
    for run in sweep.runs:
        if run.state == FAILED:
            say(console, f"{run.folder}: failed with exit code {run.exit_code}: {run.message}")


def caption(summary: list[Measured]) -> list[str]:
    """The notes that explain the cells."""
    lines = [OVER_SEEDS if any(len(entry["seeds"]) > 1 for entry in summary) else OVER_TASKS]
    labels = dict.fromkeys(label for entry in summary for label in entry["results"] if label.endswith(")"))
    lines += [label.replace(" (", ": ").rstrip(")") for label in labels]
    return [*lines, CHOSEN] if any(entry["best"] for entry in summary) else lines


def lines_of(row: dict[str, str]) -> list[str]:
    """A row of the table, with one number a line."""
    name, *numbers = (cell.replace("\n", ", ") for cell in row.values())
    headings = [heading.replace("\n", " ") for heading in row][1:]
    return [f"{name}:", *(f"  {heading}: {number}" for heading, number in zip(headings, numbers, strict=True))]


def cells(sweep: Sweep, entry: Measured) -> dict[str, str]:
    """Heading -> cell, for an entry of the summary: its settings, its validation and its results."""
    scores = {"validation": entry["validation"]} if entry["validation"] else {}
    algorithms = {run.config["algorithm"]["name"] for run in sweep.runs}
    for label, column in entry["results"].items():  # with several algorithms, the settings name them
        label = "adapted" if len(algorithms) > 1 and label in algorithms else label
        scores[label.partition(" (")[0]] = column[-1]
    numbers = {f"{label}\n{entry['metric']}": write_score(score, entry["style"]) for label, score in scores.items()}
    return {"settings": name_of(sweep, entry), **numbers}


def name_of(sweep: Sweep, entry: Measured) -> str:
    """The settings of an entry; below them the number of finished seeds, if there are several or one failed."""
    name = short_text(entry["settings"]) or sweep.name
    done, seeds = len(entry["seeds"]), len(entry["seeds"] + entry["missing"])
    failed = sum(run.state == FAILED and without_seed(run.settings) == entry["settings"] for run in sweep.runs)
    counts = [f"{done} seeds" if done == seeds else f"{done} of {seeds} seeds"] if seeds > 1 else []
    counts += [f"{failed} failed" if seeds > 1 else "failed"] if failed else []
    return "\n".join([f"{name} {BEST}" if entry["best"] else name, *([", ".join(counts)] if counts else [])])


def write_score(score: dict[str, Any], style: str) -> str:
    """A mean with its spread, as text."""
    mean, tasks = score["mean"], score["ci95"]
    if score["sd"] is None:
        return with_interval(mean, tasks, style)
    lines = [with_interval(mean, score["t95"], style), f"sd {score['sd']:{style}}"]
    return "\n".join(lines if tasks is None else [*lines, f"tasks ± {tasks:{style}}"])
