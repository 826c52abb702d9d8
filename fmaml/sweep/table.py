"""The table of a sweep: a row for each choice of settings, its results at the last inner step over seeds."""

from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from .expand import short_text
from .outcomes import Measured, without_seed
from .record import FAILED, Sweep

BEST = "*"
OVER_SEEDS = (
    "± is the 95 % t-interval of the mean over seeds; sd is the standard deviation over seeds; "
    "tasks ± is the 95 % interval over the tasks of one run"
)
OVER_TASKS = "± is the 95 % interval over the tasks of the run"
CHOSEN = f"{BEST} is the best on validation tasks, of the rows with all their seeds; the other columns are unseen tasks"


def print_sweep(console: Console, sweep: Sweep, summary: list[Measured]) -> None:
    """Print the table, line by line where the console is too narrow for it; then which runs are not done, and why."""
    title = f"{sweep.name}: results on unseen tasks after the last inner step"
    table = table_of(sweep, summary, title)
    lines = "".join(segment.text for segment in console.render(table)).splitlines()
    if max(map(cell_len, lines)) <= console.width:
        console.print(table)
    else:
        say(console, "\n".join([title, *lines_of(sweep, summary), *caption(summary)]))
    for run in sweep.runs:
        outcome = sweep.outcomes[run.folder]
        if outcome.state == FAILED:
            say(console, f"{run.folder}: failed with exit code {outcome.exit_code}: {outcome.message}")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def table_of(sweep: Sweep, summary: list[Measured], title: str) -> Table:
    """The whole table, no cell of which is cut."""
    several = any(len(entry["seeds"]) > 1 for entry in summary)  # such rows have several lines
    table = Table(
        title=title,
        show_lines=several,
        caption="\n".join(caption(summary)),
        caption_justify="left",
        title_justify="left",
    )
    header, *rows = cells(sweep, summary)
    for number, heading in enumerate(header):
        longest = max(cell_len(line) for row in (header, *rows) for line in row[number].split("\n"))
        table.add_column(heading, justify="left" if number == 0 else "right", min_width=longest, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def lines_of(sweep: Sweep, summary: list[Measured]) -> list[str]:
    """The same, a number a line."""
    header, *rows = cells(sweep, summary)
    lines: list[str] = []
    for row in rows:
        lines.append(f"{row[0].replace(chr(10), ', ')}:")
        pairs = zip(header[1:], row[1:], strict=True)
        lines += [f"  {' '.join(heading.split())}: {cell.replace(chr(10), ', ')}" for heading, cell in pairs if cell]
    return lines


def caption(summary: list[Measured]) -> list[str]:
    """What the signs in the cells mean."""
    lines = [OVER_SEEDS if any(len(entry["seeds"]) > 1 for entry in summary) else OVER_TASKS]
    labels = dict.fromkeys(label for entry in summary for label in entry["results"] if label.endswith(")"))
    lines += [label.replace(" (", ": ").rstrip(")") for label in labels]
    return [*lines, CHOSEN] if any(entry["best"] for entry in summary) else lines


def cells(sweep: Sweep, summary: list[Measured]) -> list[list[str]]:
    """The headings, then a row for each entry of the summary."""
    columns = [columns_of(sweep, entry) for entry in summary]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    metrics = list(dict.fromkeys(entry["metric"] for entry in summary if "metric" in entry))
    headings = ["settings", *(f"{label}\n{' or '.join(metrics)}" for label in labels)]
    rows = [headings]
    for entry, column in zip(summary, columns, strict=True):
        rows.append([name_of(sweep, entry), *(column.get(label, "") for label in labels)])
    return rows


def columns_of(sweep: Sweep, entry: Measured) -> dict[str, str]:
    """Heading -> cell of an entry: the validation, and each of its results."""
    if "metric" not in entry:
        return {}
    columns = {"validation": cell(entry["validation"], entry["style"])} if entry["validation"] else {}
    names = {run.config["algorithm"]["name"] for run in sweep.runs}
    for label, scores in entry["results"].items():
        if len(names) > 1:  # the name of the algorithm stands among the settings
            label = "adapted" if label in names else label
        columns[label.partition(" (")[0]] = cell(scores[-1], entry["style"])
    return columns


def cell(score: dict[str, Any], style: str) -> str:
    """A mean with its spread, as text."""
    mean, tasks = write_number(score["mean"], style), score["ci95"]
    if score["mean"] is None:
        return mean
    if score["sd"] is None:
        return mean if tasks is None else f"{mean} ± {tasks:{style}}"
    lines = [f"{mean} ± {score['t95']:{style}}", f"sd {score['sd']:{style}}"]
    return "\n".join(lines if tasks is None else [*lines, f"tasks ± {tasks:{style}}"])


def write_number(value: float | None, style: str) -> str:
    """A number of the metric as text."""
    return "not finite" if value is None else f"{value:{style}}"


def name_of(sweep: Sweep, entry: Measured) -> str:
    """The settings of an entry, and how many of its seeds are done, if there are several or one lacks."""
    name = short_text(entry["settings"]) or sweep.name
    done, missing = len(entry["seeds"]), len(entry["missing"])
    failed = [run for run in sweep.runs if sweep.outcomes[run.folder].state == FAILED]
    lost = sum(entry["settings"] == without_seed(run.settings) for run in failed)
    counts = [f"{done} of {done + missing} seeds" if missing else f"{done} seeds"] if done + missing > 1 else []
    counts += ([f"{lost} failed"] if done + missing > 1 else ["failed"]) if lost else []
    return "\n".join([f"{name} {BEST}" if entry["best"] else name, *([", ".join(counts)] if counts else [])])
