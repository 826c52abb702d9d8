"""Finish a run: meta-testing, the table, results.json, the model with its results, the pictures, the page."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from ..checkpoints.checkpoint_format import Facts, flatten
from ..checkpoints.folder_watch import CheckFolder
from ..config.settings import Config, EvalSettings
from ..data.source import Source
from ..files.json_files import nan_to_null
from ..files.plain_text import minutes_and_seconds
from ..meta_testing.saved_scores import SavedScores, digest_of_theta
from ..meta_testing.scores import Interval, meta_test, passes_of_test, references
from ..meta_testing.unknown_classes import calibrated
from ..models.metadata import with_results
from ..models.model_file import write_model
from .nan_guard import CURE
from .resume_and_train import RunOutputs, Trained
from .testing_progress import MetaTestProgress


class Training(NamedTuple):
    """Facts about the training for the report."""

    seconds: float
    meta_steps: int  # fewer than train.meta_steps if train.patience ended the training


PROTOCOL_HEADINGS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
    "in_context": "with the support set as a prompt",
}


def report_results(
    outputs: RunOutputs, config: Config, trained: Trained, training: Training, formats: Sequence[str]
) -> None:
    """Meta-test, print the table, and write results.json, the model with its results, the pictures and the page.

    The pictures are written as PNG and in the ``formats``. Without a ``store`` (in all processes but the first),
    nothing is written.
    """
    settings, (console, sinks, store, metadata) = EvalSettings(**config["eval"]), outputs
    if store is None:
        score_all(console, None, trained, settings, {})
        return
    from ..files.figures import also_in
    from ..report import results as report  # this imports matplotlib, which takes half a second
    from ..report.html_report import write_report

    experiment, theta = next(iter(trained.values()))
    source = experiment.source
    facts = {"data": store.facts["data"], "config": config["data"], "seed": config["seed"], "steps": settings.steps}
    scored = score_all(console, store.folder / "scores.jsonl", trained, settings, facts, store.check_folder)
    compared = compared_with(source, settings, scored)
    results = scored | compared
    duration = minutes_and_seconds(training.seconds)
    calibration = calibrated(experiment, theta, settings)
    protocol = report.describe_protocol(config, source.about, duration, training.meta_steps)
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    report.print_results(console, results, source.metric, title, protocol)
    report.print_calibration(console, calibration)
    if any(math.isnan(score.mean) for column in results.values() for score in column):
        console.print(f"not finite: the network diverges on test tasks; {CURE}", soft_wrap=True)
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(training.seconds, 1)}
    evaluated["meta_steps"] = training.meta_steps
    about = {**source.about, **evaluated, "protocol": protocol, "chance": source.chance, "references": list(compared)}
    about |= report.in_results(calibration)
    if config["train"]["baseline"] == "start":
        console.print(describe_gain(store.folder, *trained), soft_wrap=True)
        if source.about.get("classes", {}).get("test", FEW_CLASSES) < FEW_CLASSES:
            console.print(FEW_CLASSES_TOLD, soft_wrap=True)
    for row in logged_results(results):
        sinks.write(row)
    store.check_folder()
    report.write_results(store.folder / "results.json", results, source.metric, about)
    model = with_results(metadata, scored, settings.tasks, training.seconds)
    model |= {"calibration": calibration} if calibration else {}
    write_model(store.folder / "model.safetensors", flatten(theta), model)
    with also_in(formats):
        report.write_pictures(store.folder, experiment, theta, settings.steps)
    write_report(console, store.folder, store.check_folder, experiment, theta, model)


FEW_CLASSES = 5  # test classes, below which the interval over tasks says little about other classes
FEW_CLASSES_TOLD = (
    "few test classes: the interval covers the draw of tasks, not other classes. "
    "`fmaml adapt` measures the accuracy on all of your classes"
)


def describe_gain(folder: Path, trained: str, start: str) -> str:
    """The gain over the model that training began with, by the test tasks of both."""
    from ..report.paired import paired_difference
    from ..report.read_run import scores_of_tasks

    _, columns = scores_of_tasks(folder)
    gains = []
    for column, scores in columns.items():
        protocol = column.removeprefix(trained)
        found = paired_difference(columns.get(start + protocol, {}), scores) if protocol != column else None
        if found:
            interval = "" if found.ci95 is None else f" ± {100 * found.ci95:.1f}"
            gains.append(f"{100 * found.mean:+.1f}{interval} points{protocol}")
    return f"gain over {start}: {'; '.join(gains)}"


def compared_with(
    source: Source, settings: EvalSettings, scored: dict[str, list[Interval]]
) -> dict[str, list[Interval]]:
    """The source's reference scores on the same tasks, cut to the length of the score columns."""
    longest = max(map(len, scored.values()))  # 1 for algorithms without inner steps
    return {label: column[:longest] for label, column in references(source, settings).items()}


def logged_results(results: dict[str, list[Interval]]) -> Iterator[dict[str, Any]]:
    """The results as rows of a log; the step is the number of inner steps."""
    for label, column in results.items():
        for step, score in enumerate(column):
            yield nan_to_null({"kind": "test", "step": step, "result": label, "score": score.mean, "ci95": score.ci95})


def score_all(
    console: Console,
    path: Path | None,
    trained: Trained,
    settings: EvalSettings,
    facts: Facts,
    check_folder: CheckFolder = lambda: None,
) -> dict[str, list[Interval]]:
    """Column heading -> the metric after 0, 1, .. inner steps, for each algorithm and evaluation protocol.

    Scores are saved in the file ``path``, so that an interrupted test continues; without a ``path`` they are not saved.
    They are valid for the same ``facts`` and theta. ``check_folder`` is called before each write.
    """
    digests = {name: digest_of_theta(theta) for name, (_, theta) in trained.items()}
    saved = SavedScores(path, {**facts, "theta": digests}, check_folder) if path else None
    sources = [experiment.source for experiment, _ in trained.values()]
    tasks = settings.tasks * sum(len(source.tested(alone=settings.inductive)) for source in sources)
    passes = sum(passes_of_test(source, settings) for source in sources)
    possible = {protocol.__name__ for source in sources for protocol in source.settings}
    columns: dict[str, list[Interval]] = {}
    with MetaTestProgress(console, tasks, passes) as progress:
        for name, (experiment, theta) in trained.items():
            tested = meta_test(experiment, theta, settings, saved=saved, progress=progress, name=name)
            for protocol, column in tested.items():
                columns[column_heading(name, protocol, len(trained), possible)] = column
    return columns


def column_heading(name: str, protocol: str, algorithms: int, protocols: set[str]) -> str:
    """A column's heading: the algorithm, the protocol or both, as needed to distinguish the columns."""
    if len(protocols) == 1 or (protocol == "transductive" and "in_context" in protocols):
        return name
    heading = PROTOCOL_HEADINGS.get(protocol, protocol.replace("_", " "))  # a source may have its own
    return heading if algorithms == 1 else f"{name}, {heading}"
