"""The report of a run: the table of results, results.json and the pictures."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from .. import distributed
from ..config.build import Experiment
from ..config.settings import Config, TrainSettings
from ..data.source import About, Metric
from ..evaluation import trajectory_of
from ..files.figures import save_figure
from ..files.json_files import write_json_durably
from ..files.plain_text import counted
from ..meta_testing.scores import Interval
from ..models.model_card import calibration_facts
from ..tree import take
from ..types import Theta
from .curves import by_inner_step, learning_curve
from .read_run import metrics_of, read_run

Results = dict[str, list[Interval]]  # column heading -> intervals after 0, 1, .. inner steps
PADDING = 2  # of a column; rich includes it in the least width
TASKS_SHOWN = 4  # test tasks in the pictures


def print_results(console: Console, results: Results, metric: Metric, title: str, protocol: str) -> None:
    """Print the results as a table, or one number a line if the console is too narrow."""
    table = results_table(results, metric, title, protocol)
    lines = "".join(segment.text for segment in console.render(table)).splitlines()
    if max(map(cell_len, lines)) <= console.width:
        console.print(table)
    else:
        lines = [title, *result_lines(results, metric), protocol]
        console.print("\n".join(lines), soft_wrap=True)


def print_calibration(console: Console, found: dict[str, Any]) -> None:
    """Print the calibration and the AUROC, a line each."""
    for heading, text in calibration_facts(found).items():
        console.print(f"{heading.lower()}: {text}", highlight=False, markup=False, soft_wrap=True)


def in_results(found: dict[str, Any]) -> About:
    """The part of results.json about the calibration, without the distances."""
    return {"calibration": {key: value for key, value in found.items() if key != "distances"}} if found else {}


def results_table(results: Results, metric: Metric, title: str, protocol: str) -> Table:
    """The metric by inner step, one column per result; the caption describes the protocol.

    Without inner steps there is one row, and no column of their numbers.
    """
    stepped = any(len(column) > 1 for column in results.values())
    table = Table(title=title, caption=protocol, caption_justify="left", title_justify="left")
    if stepped:
        table.add_column("inner steps", justify="right")
    for label, column in results.items():
        longest = max((len(metric.write(*score)) for score in column), default=0)
        table.add_column(label.replace(" (", "\n("), justify="right", min_width=longest + PADDING)
    for step, row in enumerate(zip_longest(*results.values())):  # an algorithm without inner steps has one row
        cells = ["" if score is None else metric.write(score.mean, score.ci95) for score in row]
        table.add_row(*([str(step)] if stepped else []), *cells)
    return table


def result_lines(results: Results, metric: Metric) -> list[str]:
    """The metric by inner step, one number a line under the name of its result."""
    lines: list[str] = []
    for label, column in results.items():
        if len(column) == 1:
            lines.append(f"{label}: {metric.write(*column[0])}")
            continue
        lines += [f"{label}, by inner step:", *(f"{step}: {metric.write(*score)}" for step, score in enumerate(column))]
    return lines


def describe_protocol(config: Config, about: About, duration: str, trained_steps: int) -> str:
    """Describe in one line everything that the results depend on.

    ``duration`` is the training's; ``trained_steps`` may be fewer than ``train.meta_steps`` by ``train.patience``.
    """
    steps = config["algorithm"].get("steps")
    tasks = config["eval"]["tasks"]
    inner = "" if steps is None else f" with {counted(steps, 'inner step')}"
    interval = "± is a 95 % interval over tasks" if tasks > 1 else "one task gives no interval"
    train = TrainSettings(**config["train"])
    early = trained_steps < train.meta_steps
    stopped = f", ended by train.patience = {train.patience}" if early else ""
    steps_done = f"{trained_steps} of {train.meta_steps}" if early else f"{train.meta_steps}"
    own = [f"{about[f'train_{size}']} {size}" for size in ("ways", "shots") if f"train_{size}" in about]
    own += [f"images changed by {' and '.join(about['augment'])}"] if about.get("augment") else []
    of = f" ({', '.join(own)})" if own else ""
    meta_steps = f"{steps_done} meta-steps of {counted(train.tasks_of(distributed.world_size()), 'task')}{of}{inner}"
    return (
        f"{about['protocol']} ({config['data']['name']}), {counted(tasks, 'task')}, seed {config['seed']}; "
        f"trained for {meta_steps} in {duration}{stopped}; {interval}"
    )


def write_results(path: Path, results: Results, metric: Metric, about: About) -> None:
    """Write results.json: the results, their format, and everything they depend on."""
    columns = {label: [score._asdict() for score in column] for label, column in results.items()}
    form = {"metric": metric.name, "more_is_better": metric.more_is_better, "style": metric.style}
    content = {**about, **form, "results": columns}
    write_json_durably(path, content)


def write_pictures(folder: Path, experiment: Experiment, theta: Theta, steps: int) -> None:
    """Draw the learning curve and the metric by inner step from the run's files, and the source's pictures."""
    run = read_run(folder)
    results = run.results or {}
    title = f"{results['task']}: {run.metric.name} on unseen tasks"
    save_figure(learning_curve(metrics_of(folder), run.metric), folder / "learning_curve.png")
    save_figure(by_inner_step(run.columns, run.metric, title, results["chance"]), folder / "by_inner_step.png")
    show_tasks(folder, experiment, theta, steps)


@torch.no_grad()
def show_tasks(folder: Path, experiment: Experiment, theta: Theta, steps: int) -> None:
    """Draw the source's pictures of its first test tasks."""
    source = experiment.source
    stacked = (source.seen or source.sample)("test", 0, range(TASKS_SHOWN))
    tasks = [take(stacked, i) for i in range(TASKS_SHOWN)]
    phis = [trajectory_of(experiment.algorithm, theta, task.support, steps) for task in tasks]
    source.show(folder, tasks, phis, experiment.model.apply)
