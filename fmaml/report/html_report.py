"""report.html: a run on one self-contained page. It is written last; a failure here never fails the run."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console

from ..checkpoints.folder_watch import CheckFolder
from ..config.build import Experiment
from ..errors import Error
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
    cost_section,
    data_section,
    environment_section,
    header_section,
    learning_section,
    results_section,
    settings_section,
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
SAMPLE_TASKS, TASKS_OF_CHANGES, PAIRS_SHOWN = 2, 8, 12
USED_BY = {  # targets -> the commands and functions that accept such a model
    "classes": ", for fmaml.load, fmaml predict and fmaml test",
    "values": ", for fmaml.load and fmaml test",
    "symbols": ", for fmaml.load and fmaml test",
    "own_loss": ", for fmaml test",
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
    """Write report.html from a run's other files; a failure is only printed.

    ``model`` is the metadata of the model's file, with its results.
    """
    try:
        run = read_run(folder)
        rows = metrics_of(folder)
        parts = [
            header_section(run),
            trouble_section(run),
            results_section(run),
            settings_section(run),
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
            f"<h1>{escape(name)}</h1>\n{parts[0]}",
            *parts[1:],
            style=STYLE_OF_TASKS,
        )
        check_folder()
        write_text_durably(folder / REPORT, page)
    except Error as error:
        check_folder()  # a run fails if its folder is gone
        reason = str(error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return
    line = f"{REPORT} was not written ({reason}); the run is complete without it"
    console.print(line, soft_wrap=True)


def test_sections(run: PastRun, experiment: Experiment, theta: Theta) -> Iterator[str]:
    """The sections that run test tasks again; a section that fails is replaced by its error."""
    config = run.config
    steps, tasks = int(config["eval"]["steps"]), int(config["eval"]["tasks"])
    targets = targets_of(config["data"]["name"])
    makers: list[Callable[[], str]] = []
    if targets == "classes":
        makers.append(lambda: class_sections(experiment, theta, steps, tasks))
    elif targets == "values":
        makers.append(lambda: functions_section(experiment, theta, steps, min(SAMPLE_TASKS, tasks)))
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
        except Exception as error:  # such as out of memory; the rest of the page does not depend on it
            yield section("Left out", paragraph(f"{type(error).__name__}: {error}"), kind="warning")


def class_sections(experiment: Experiment, theta: Theta, steps: int, tasks: int) -> str:
    """A few tasks of classes, and the most confused classes if they have names."""
    source = experiment.source
    tasks_read = min(tasks, TASKS_OF_CONFUSIONS if source.classes_of else SAMPLE_TASKS)
    found = named_tasks(experiment, theta, steps, range(tasks_read))
    confused = most_confused(found, PAIRS_SHOWN) if source.classes_of else []
    return tasks_section(found[:SAMPLE_TASKS]) + "\n" + confusions_section(confused, tasks_read)


def memory_used() -> dict[str, str]:
    """The peak memory of this process, if the system reports it."""
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
    facts = facts_of(model) | {"File": f"model.safetensors in the run's folder{USED_BY[model['targets']]}"}
    return section("Model card", html_table(["", ""], [list(fact) for fact in facts.items()]))
