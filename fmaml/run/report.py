"""What a run ends with: the table, results.json and the pictures."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from ..data.pictures import save_figure
from ..data.source import Metric
from ..outer import trajectory_of
from ..tree import take
from ..types import Theta
from .build import Experiment
from .curves import Curves, by_inner_step, learning_curve
from .log import without_nan
from .meta_test import Interval

Results = dict[str, list[Interval]]  # what was evaluated -> intervals after 0, 1, .. inner steps
TASKS_SHOWN = 4  # test tasks that pictures are made of


def results_table(results: Results, metric: Metric, title: str, protocol: str) -> Table:
    """The metric by inner step, one column a result, with everything the numbers depend on in the caption."""
    view = Table(title=title, caption=protocol, caption_justify="left", title_justify="left")
    view.add_column("inner steps", justify="right")
    for label in results:
        view.add_column(label.replace(" (", "\n("), justify="right")
    for step, row in enumerate(zip(*results.values(), strict=True)):
        view.add_row(str(step), *(metric.write(score.mean, score.ci95) for score in row))
    return view


def protocol(config: dict[str, Any], about: dict[str, Any], hours: str) -> str:
    """One line that says how the numbers were got."""
    trained, tested = config["algorithm"].get("steps"), config["eval"]["tasks"]
    inner = "" if trained is None else f" with {trained} inner step{'s' * (trained != 1)}"
    return (
        f"{about['protocol']} ({config['data']['name']}), {tested} tasks, seed {config['seed']}; trained for "
        f"{config['train']['meta_steps']} meta-steps of {config['train']['meta_batch']} tasks{inner} in {hours}; "
        f"{'± is a 95 % interval over tasks' if tested > 1 else 'of one task there is no interval'}"
    )


def write_results(path: Path, results: Results, metric: Metric, about: dict[str, Any]) -> None:
    """results.json: the numbers, and all that they depend on."""
    rows = {label: [score._asdict() for score in column] for label, column in results.items()}
    content = {**about, "metric": metric.name, "results": rows}
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_pictures(folder: Path, experiment: Experiment, theta: Theta, results: Results, steps: int) -> None:
    source = experiment.source
    curves: Curves = {label: [(score.mean, score.ci95) for score in column] for label, column in results.items()}
    title = f"{source.about['task']}: {source.metric.name} on unseen tasks"
    save_figure(learning_curve(folder / "metrics.jsonl", source.metric), folder / "learning_curve.png")
    save_figure(by_inner_step(curves, source.metric, title, source.chance), folder / "by_inner_step.png")
    show_tasks(folder, experiment, theta, steps)


@torch.no_grad()
def show_tasks(folder: Path, experiment: Experiment, theta: Theta, steps: int) -> None:
    """The source's own pictures, of its first few test tasks."""
    stacked = experiment.source.sample("test", 0, range(TASKS_SHOWN))
    tasks = [take(stacked, i) for i in range(TASKS_SHOWN)]
    phis = [trajectory_of(experiment.algorithm, theta, task.support, steps) for task in tasks]
    experiment.source.show(folder, tasks, phis, experiment.model.apply)
