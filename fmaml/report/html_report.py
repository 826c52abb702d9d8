"""report.html: a run on one page that needs no other file. It is written last, and nothing of a run hangs on it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from ..checkpoints.folder_watch import CheckFolder
from ..config.build import Experiment
from ..errors import UserError
from ..files.atomic import write_text_durably
from ..files.plain_text import megabytes
from ..files.regular import read_regular
from ..meta_testing.predictions import TASKS_OF_CONFUSIONS, change_by_parameter, most_confused, named_tasks
from ..models.metadata import targets_of
from ..models.model_card import facts_of
from ..models.model_file import Metadata
from ..types import Theta
from .html_page import document, escape, html_table, paragraph, section
from .read_run import PastRun, metrics_of, read_run
from .run_sections import (
    asked_section,
    cost_section,
    data_section,
    environment_section,
    header_section,
    learning_section,
    results_section,
    trouble_section,
)
from .task_sections import (
    STYLE_OF_TASKS,
    confusions_section,
    functions_section,
    layers_section,
    samples_section,
    tasks_section,
)

REPORT = "report.html"
TASKS_SHOWN_HERE, TASKS_OF_CHANGES, PAIRS_SHOWN = 2, 8, 12
TAKEN_BY = {  # targets -> what takes such a model
    "classes": ", for fmaml.load, fmaml predict and fmaml test",
    "values": ", for fmaml.load and fmaml test",
    "symbols": ", for fmaml.load and fmaml test",
    "actions": ", for fmaml test",
}
MAX_SAMPLES_BYTES = 10_000_000


def write_report(
    console: Console,
    folder: Path,
    check_folder: CheckFolder,
    experiment: Experiment,
    theta: Theta,
    model: Metadata | None,
) -> None:
    """Write report.html into the folder of a run whose other files are all there; where that fails, say so and go on.

    ``model`` is what the model's file says of it, with its results.
    """
    try:
        run = read_run(folder)
        rows = metrics_of(folder)
        parts = [
            header_section(run),
            trouble_section(run),
            results_section(run),
            asked_section(run),
            learning_section(run, rows),
            *test_sections(run, experiment, theta),
            cost_section(run, rows, memory_used()),
            environment_section(run),
            card_section(model),
            data_section(run),
        ]
        name = str(run.config["name"])
        page = document(
            f"{name}: a run of fmaml",
            f"<header><h1>{escape(name)}</h1>",
            *parts[:1],
            "</header>",
            *parts[1:],
            style=STYLE_OF_TASKS,
        )
        check_folder()
        write_text_durably(folder / REPORT, page)
    except UserError as error:
        check_folder()  # a run whose folder is gone has failed, and says so
        said = str(error)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    else:
        return
    line = f"{REPORT} was not written ({said}); the run is complete without it"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def test_sections(run: PastRun, experiment: Experiment, theta: Theta) -> Iterator[str]:
    """The sections for which test tasks are run again; in the place of one that fails, why it did."""
    config = run.config
    steps, tasks = int(config["eval"]["steps"]), int(config["eval"]["tasks"])
    targets = targets_of(config["data"]["name"])
    makers: list[Callable[[], str]] = []
    if targets == "classes":
        makers.append(lambda: class_sections(experiment, theta, steps, tasks))
    elif targets == "values":
        makers.append(lambda: functions_section(experiment, theta, steps, min(TASKS_SHOWN_HERE, tasks)))
    elif (run.folder / "samples.txt").is_file():
        makers.append(
            lambda: samples_section(
                read_regular(run.folder / "samples.txt", MAX_SAMPLES_BYTES).decode("utf-8", "replace")
            )
        )
    shown = min(TASKS_OF_CHANGES, tasks)
    makers.append(lambda: layers_section(change_by_parameter(experiment, theta, steps, shown), steps, shown))
    for make in makers:
        try:
            yield make()
        except Exception as error:  # such as too little memory; the rest of the page does not need it
            yield section("Left out", paragraph(f"{type(error).__name__}: {error}"), kind="warning")


def class_sections(experiment: Experiment, theta: Theta, steps: int, tasks: int) -> str:
    """A few tasks of classes, and what was confused, if the classes have names."""
    source = experiment.source
    looked_at = min(tasks, TASKS_OF_CONFUSIONS if source.classes_of else TASKS_SHOWN_HERE)
    found = named_tasks(experiment, theta, steps, range(looked_at))
    confused = most_confused(found, PAIRS_SHOWN) if source.classes_of else []
    return tasks_section(found[:TASKS_SHOWN_HERE]) + "\n" + confusions_section(confused, looked_at)


def memory_used() -> dict[str, str]:
    """The most memory that this process has used, as far as the system tells."""
    found: dict[str, str] = {}
    if sys.platform != "win32":
        import resource  # Windows has none

        unit = 1 if sys.platform == "darwin" else 1024  # bytes; Linux counts in KiB
        found["memory of this process, at most"] = megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["memory of the GPU, at most"] = megabytes(torch.cuda.max_memory_allocated())
    return found


def card_section(model: Metadata | None) -> str:
    """The card of the trained model."""
    if model is None:
        return ""
    facts = facts_of(model) | {"File": f"model.safetensors in the run's folder{TAKEN_BY[model['targets']]}"}
    return section("Model card", html_table(["", ""], [list(fact) for fact in facts.items()]))
