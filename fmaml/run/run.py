"""Runs one experiment, from its config to its report."""

import json
import math
from pathlib import Path

import torch
from rich.console import Console

from ..atomic_files import write_text_durably
from ..config.settings import Config, EvalSettings, TrainSettings
from ..config.strict_yaml import dump_yaml
from ..data.rng import SPLITS
from ..data.task_check import check_tasks
from ..errors import RunFailed, Stopped, UserError, note
from ..tree import leaves, map_leaves, take
from ..types import Params, Theta
from .build import Experiment, build, joint_baseline
from .environment import environment, pick_device
from .log import RunLog, minutes_and_seconds, truncate_metrics
from .memory import check_model_fits, explain_out_of_memory, keep_freed_memory
from .meta_test import Interval, meta_test, references
from .nan_guard import CURE
from .output import lasting_stdout
from .signals import deferred_signals
from .store.checkpoint_store import CheckpointStore, Progress
from .store.resume_compatibility import collect_facts
from .store.run_folder import describe_os_error, run_folder
from .train import first_progress, train

Trained = dict[str, tuple[Experiment, Theta]]  # name -> the experiment, and its best theta
PROTOCOL_HEADINGS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
}


def run(
    config: Config,
    *,
    device: str = "auto",
    out: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
) -> int:
    """Train, meta-test and report; returns the process's exit code.

    Raises UserError if the config, the device or the folder cannot be used, RunFailed if the run cannot continue.
    """
    console = Console(file=lasting_stdout())
    torch_device = pick_device(device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    with explain_out_of_memory(config):
        experiment = build(config, torch_device)
        check_model_fits(config, experiment.model, torch_device)
        params = initial_params(experiment, config["seed"], torch_device)
        check_algorithm(config, experiment, params)
    print_description(console, config, experiment, params, torch_device)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained")
        return 0

    with run_folder(out, config["name"], resume) as folder, deferred_signals(), explain_out_of_memory(config):
        try:
            train_and_report(console, folder, config, experiment, params, torch_device)
        except Stopped as stop:
            message = f"stopped; `fmaml resume {folder}` continues"
            console.print(message, highlight=False, markup=False, soft_wrap=True)
            return stop.code
        except OSError as error:
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error
    return 0


def train_and_report(
    console: Console,
    folder: Path,
    config: Config,
    experiment: Experiment,
    params: Params,
    device: torch.device,
) -> None:
    """Restore or start the run in its folder, train, and report; with ``train.baseline`` also train jointly."""
    run_facts = collect_facts(config, experiment.source, device)
    store = CheckpointStore(folder, run_facts)
    if not (folder / "config.yaml").exists():
        write_text_durably(folder / "config.yaml", dump_yaml(config))
    progress = store.restore(first_progress(experiment, params), note)
    write_text_durably(folder / "config.yaml", dump_yaml(config))  # a resumed run may have changed some settings
    write_text_durably(folder / "environment.json", json.dumps(environment(device), indent=2) + "\n")
    best_theta = fit(console, store, config, experiment, progress)
    training_seconds = store.seconds()
    trained: Trained = {config["algorithm"]["name"]: (experiment, best_theta)}
    if config["train"]["baseline"]:
        console.print("the baseline: the same network trained jointly, then fine-tuned")
        (folder / "joint").mkdir(exist_ok=True)
        joint = joint_baseline(config, experiment)
        joint_store = CheckpointStore(folder / "joint", run_facts | {"algorithm": "joint"})
        joint_progress = joint_store.restore(first_progress(joint, params), note)
        joint_theta = fit(console, joint_store, config, joint, joint_progress)
        trained["joint training, fine-tuned"] = joint, joint_theta
    console.print(
        f"trained in {minutes_and_seconds(training_seconds)}; meta-testing on {config['eval']['tasks']} tasks ...",
        highlight=False,
    )
    report_results(console, folder, config, trained, training_seconds)


def fit(console: Console, store: CheckpointStore, config: Config, experiment: Experiment, progress: Progress) -> Theta:
    """Train, writing metrics.jsonl, checkpoints and the best and last parameters; returns the best theta."""
    path = store.folder / "metrics.jsonl"
    truncate_metrics(path, progress.state.step, progress.validated)
    settings = TrainSettings(**config["train"])
    with RunLog(path, settings.meta_steps, experiment.source.metric, console, store.seconds()) as log:

        def save(progress: Progress) -> None:
            log.sync()  # so that every checkpoint has the rows before it
            store.save(progress)

        progress = train(experiment, progress, log, save, settings, config["eval"]["steps"])
        save(progress)
    store.finish(progress)
    return progress.best_theta


def initial_params(experiment: Experiment, seed: int, device: torch.device) -> Params:
    """The model's initial parameters, drawn on the CPU so that a seed gives the same ones on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


@torch.no_grad()
def check_algorithm(config: Config, experiment: Experiment, params: Params) -> None:
    """Compute the loss of one task; UserError if the tasks are malformed, or the algorithm does not work with them."""
    algorithm, source = experiment.algorithm, experiment.source
    for split in SPLITS:
        check_tasks(split, source.sample(split, 0, range(1)), source)
    tasks = source.sample("train", 0, range(1))
    try:
        algorithm.loss(algorithm.init(params), take(tasks, 0))
    except ValueError as error:
        raise UserError(f"algorithm.name = {config['algorithm']['name']}: {error}") from error


def print_description(
    console: Console, config: Config, experiment: Experiment, params: Params, device: torch.device
) -> None:
    """Print what will be trained: algorithm, data, protocol, model, device."""
    size = sum(leaf.numel() for leaf in leaves(params))
    console.print(
        f"[bold]{config['name']}[/]: {config['algorithm']['name']} on {config['data']['name']}, "
        f"{experiment.source.about['protocol']}; {config['model']['name']} with {size:,} parameters, on {device}",
        highlight=False,
        soft_wrap=not console.is_terminal,  # one line in a log file
    )


def report_results(console: Console, folder: Path, config: Config, trained: Trained, training_seconds: float) -> None:
    """Meta-test, print the table, and write results.json and the pictures."""
    from . import report  # imports matplotlib, half a second that the first training step need not wait for

    settings = EvalSettings(**config["eval"])
    experiment, theta = next(iter(trained.values()))
    source = experiment.source
    results = score_all(trained, settings) | references(source, settings)
    protocol = report.describe_protocol(config, source.about, minutes_and_seconds(training_seconds))
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    report.print_results(console, results, source.metric, title, protocol)
    if any(math.isnan(score.mean) for column in results.values() for score in column):
        console.print(f"not finite: the network diverges on test tasks; {CURE}", highlight=False, soft_wrap=True)
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(training_seconds, 1)}
    about = {**source.about, **evaluated, "protocol": protocol}
    report.write_results(folder / "results.json", results, source.metric, about)
    report.write_pictures(folder, experiment, theta, results, settings.steps)
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def score_all(trained: Trained, settings: EvalSettings) -> dict[str, list[Interval]]:
    """Column heading -> the metric after 0, 1, .. inner steps, for each algorithm and evaluation protocol."""
    columns = {
        (name, protocol): column
        for name, (experiment, theta) in trained.items()
        for protocol, column in meta_test(experiment, theta, settings).items()
    }
    protocols = {protocol for _, protocol in columns}
    return {
        column_heading(name, protocol, len(trained), len(protocols)): column
        for (name, protocol), column in columns.items()
    }


def column_heading(name: str, protocol: str, algorithms: int, protocols: int) -> str:
    """A column's heading: the algorithm, the protocol or both, whichever tells the columns apart."""
    if protocols == 1:
        return name
    return PROTOCOL_HEADINGS[protocol] if algorithms == 1 else f"{name}, {PROTOCOL_HEADINGS[protocol]}"
