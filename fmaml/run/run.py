"""One experiment from its config to its report."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..atomic_files import write_durably
from ..config.settings import EvalSettings, TrainSettings
from ..config.strict_yaml import dump_yaml
from ..errors import RunFailed, Stopped, UserError, note
from ..tree import leaves, map_leaves, take
from ..types import Params, Theta
from .build import Experiment, baseline, build
from .environment import environment, pick_device
from .log import RunLog, clock, truncate_metrics
from .memory import check_size, keep_freed_memory, named_if_too_large
from .meta_test import meta_test, references
from .signals import caught
from .store.checkpoint_store import CheckpointStore, Progress
from .store.resume_compatibility import facts
from .store.run_folder import describe_os_error, run_folder
from .train import first_progress, train

Contenders = dict[str, tuple[Experiment, Theta]]  # name -> what was trained, and the best theta
LABELS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
}


def run(
    config: dict[str, Any],
    *,
    device: str = "auto",
    out: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
) -> int:
    """Train, meta-test and report; returns the process's exit code."""
    console = Console()
    place = pick_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    with named_if_too_large(config):
        experiment = build(config, place)
        check_size(config, experiment.model, place)
        params = initial_params(experiment, config["seed"], place)
        try_out(config, experiment, params)
    describe(console, config, experiment, params, place)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained")
        return 0

    with run_folder(out, config["name"], resume) as folder, caught(), named_if_too_large(config):
        try:
            train_and_report(console, folder, config, experiment, params, place)
        except Stopped as stop:
            console.print(f"stopped; `fmaml resume {folder}` goes on", highlight=False, markup=False, soft_wrap=True)
            return stop.code
        except BrokenPipeError:  # of the console
            raise
        except OSError as error:
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error
    return 0


def train_and_report(
    console: Console,
    folder: Path,
    config: dict[str, Any],
    experiment: Experiment,
    params: Params,
    place: torch.device,
) -> None:
    """All that is done in the run's folder, from wherever it was left."""
    known = facts(config, experiment.source, place)
    store = CheckpointStore(folder, known)
    if not (folder / "config.yaml").exists():
        write_text(folder / "config.yaml", dump_yaml(config))
    progress = store.restore(first_progress(experiment, params), note)
    write_text(folder / "config.yaml", dump_yaml(config))  # that it may differ was checked just now
    write_text(folder / "environment.json", json.dumps(environment(place), indent=2) + "\n")
    best = fit(console, store, config, experiment, progress)
    trained = store.seconds()
    contenders = {config["algorithm"]["name"]: (experiment, best)}
    if config["train"]["baseline"]:
        console.print("the baseline: the same network trained jointly, then fine-tuned")
        (folder / "joint").mkdir(exist_ok=True)
        rival = baseline(config, experiment)
        store = CheckpointStore(folder / "joint", known | {"algorithm": "joint"})
        progress = store.restore(first_progress(rival, params), note)
        contenders["joint training, fine-tuned"] = rival, fit(console, store, config, rival, progress)
    console.print(f"trained in {clock(trained)}; meta-testing on {config['eval']['tasks']} tasks ...", highlight=False)
    finish(console, folder, config, contenders, trained)


def fit(
    console: Console, store: CheckpointStore, config: dict[str, Any], experiment: Experiment, progress: Progress
) -> Theta:
    """Train, with metrics.jsonl, checkpoints and the best and last parameters in the folder."""
    path = store.folder / "metrics.jsonl"
    truncate_metrics(path, progress.state.step, progress.validated)
    settings, metric = TrainSettings(**config["train"]), experiment.source.metric
    with RunLog(path, settings.meta_steps, metric, console, store.seconds()) as log:

        def save(progress: Progress) -> None:
            log.sync()  # no checkpoint without the rows before it
            store.save(progress)

        progress = train(experiment, progress, log, save, settings, config["eval"]["steps"])
        save(progress)
    store.finish(progress)
    return progress.best_theta


def initial_params(experiment: Experiment, seed: int, device: torch.device) -> Params:
    """The model's initial parameters: drawn on the CPU, so that a seed means the same on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


@torch.no_grad()
def try_out(config: dict[str, Any], experiment: Experiment, params: Params) -> None:
    """The loss of one task, so that an algorithm that cannot work here says so before anything is written."""
    algorithm, tasks = experiment.algorithm, experiment.source.sample("train", 0, range(1))
    try:
        algorithm.loss(algorithm.init(params), take(tasks, 0))
    except ValueError as error:
        raise UserError(f"algorithm.name = {config['algorithm']['name']}: {error}") from error


def describe(
    console: Console, config: dict[str, Any], experiment: Experiment, params: Params, device: torch.device
) -> None:
    size = sum(leaf.numel() for leaf in leaves(params))
    console.print(
        f"[bold]{config['name']}[/]: {config['algorithm']['name']} on {config['data']['name']}, "
        f"{experiment.source.about['protocol']}; {config['model']['name']} with {size:,} parameters, on {device}",
        highlight=False,
        soft_wrap=not console.is_terminal,  # a log file gets one line
    )


def finish(console: Console, folder: Path, config: dict[str, Any], contenders: Contenders, trained: float) -> None:
    """Meta-test, table, results.json, pictures."""
    from ..run import report  # matplotlib takes half a second that the first training step need not wait for

    settings = EvalSettings(**config["eval"])
    scores = {
        (name, setting): column
        for name, (experiment, theta) in contenders.items()
        for setting, column in meta_test(experiment, theta, settings).items()
    }
    experiment, theta = next(iter(contenders.values()))
    source = experiment.source
    results = {label(key, len(contenders), len(source.settings)): column for key, column in scores.items()}
    results |= references(source, settings)
    protocol = report.protocol(config, source.about, clock(trained))
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    console.print(report.results_table(results, source.metric, title, protocol))
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(trained, 1)}
    about = {**source.about, **evaluated, "protocol": protocol}
    report.write_results(folder / "results.json", results, source.metric, about)
    report.write_pictures(folder, experiment, theta, results, settings.steps)
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def label(key: tuple[str, str], contenders: int, settings: int) -> str:
    """A column's heading: what of (algorithm, setting) tells it from the others."""
    name, setting = key
    if settings == 1:
        return name
    return LABELS[setting] if contenders == 1 else f"{name}, {LABELS[setting]}"


def write_text(path: Path, text: str) -> None:
    write_durably(path, text.encode())
