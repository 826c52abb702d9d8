"""Runs one experiment, from its config to its report."""

import contextlib
import json
import math
from pathlib import Path

import torch
from rich.console import Console
from torch.utils._pytree import tree_map_only

from .. import distributed
from ..atomic_files import write_text_durably
from ..config.settings import Config, EvalSettings, TrainSettings
from ..config.strict_yaml import dump_yaml
from ..data.files.writing import writing
from ..data.rng import SPLITS
from ..data.task_check import check_tasks
from ..data.text.generate import in_context
from ..errors import RunFailed, Stopped, UserError, note
from ..tree import T, leaves, map_leaves, take
from ..types import Params, Theta
from .build import Experiment, build, joint_baseline, joint_settings
from .environment import environment, pick_device
from .fine_tuning import candidates, fine_tuned
from .followers import NoLog, NoScores, NoStore, follows
from .known_features import with_known_features
from .launcher import launched
from .log import RunLog, minutes_and_seconds, progress_bar, truncate_metrics
from .memory import check_model_fits, explain_out_of_memory, keep_freed_memory
from .meta_test import Interval, meta_test, references
from .nan_guard import CURE
from .output import lasting_stdout
from .processes import Processes, joined
from .saved_scores import SavedScores, digest_of_theta
from .signals import deferred_signals
from .store.checkpoint_format import Facts, flatten
from .store.checkpoint_store import CheckpointStore, Progress
from .store.held_folder import CheckFolder, held_folder
from .store.model_file import write_model
from .store.model_metadata import describe, with_results
from .store.resume_compatibility import collect_facts
from .store.run_folder import describe_os_error, run_folder
from .train import first_progress, train

Trained = dict[str, tuple[Experiment, Theta]]  # name -> the experiment, and its best theta
JOINT = "joint training, fine-tuned"
PROTOCOL_HEADINGS = {
    "transductive": "transductive (all queries together)",
    "inductive": "inductive (each query alone with the support set)",
    "in_context": "with the support set as a prompt",
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
    here = launched()
    torch_device = pick_device(device, here.local_rank, here.world_size)
    with joined(here, torch_device) as processes:
        return run_in(processes, config, torch_device, out=out, dry_run=dry_run, resume=resume)


def run_in(
    processes: Processes, config: Config, torch_device: torch.device, *, out: str | None, dry_run: bool, resume: bool
) -> int:
    """The run in this process, which the others have joined; returns the exit code."""
    leads = processes.launched.rank == 0
    console = Console(file=lasting_stdout()) if leads else Console(quiet=True)
    if torch_device.type == "cpu":
        keep_freed_memory()
    with explain_out_of_memory(config), writing(not dry_run):
        experiment = processes.first_on_machine(lambda: build(config, torch_device))
        check_batch(config, processes.launched.world_size)
        check_model_fits(config, experiment.model, torch_device)
        params = initial_params(experiment, config["seed"], torch_device)
        check_algorithm(config, experiment, params)
        first = first_progress(experiment, params, config["train"]["start"])
    print_description(console, config, experiment, params, torch_device)
    if dry_run:
        console.print("dry run: everything is in order; nothing was trained")
        return 0

    with deferred_signals(), explain_out_of_memory(config), contextlib.ExitStack() as stack:
        folder, check_folder = Path(), follows
        if leads:
            folder = stack.enter_context(run_folder(out, config["name"], resume))
            check_folder = stack.enter_context(held_folder(folder))
        try:
            train_and_report(console, folder, check_folder, config, experiment, params, first, torch_device)
        except Stopped as stop:
            message = f"stopped; `fmaml resume {folder}` continues"
            console.print(message, highlight=False, markup=False, soft_wrap=True)
            return stop.code
        except OSError as error:
            check_folder()
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error
    return 0


def train_and_report(
    console: Console,
    folder: Path,
    check_folder: CheckFolder,
    config: Config,
    experiment: Experiment,
    params: Params,
    first: Progress,
    device: torch.device,
) -> None:
    """Restore or start the run in its folder, train, and report; with ``train.baseline`` also train jointly."""
    store = open_store(folder, check_folder, config, experiment, device)
    progress = restored(store, first, device)
    if isinstance(store, CheckpointStore):
        write_text_durably(folder / "config.yaml", dump_yaml(config))  # a resumed run may have changed some settings
        write_text_durably(folder / "environment.json", json.dumps(environment(device), indent=2) + "\n")
    experiment = with_known_features(console, config, experiment, device)
    best_theta = fit(console, store, config, experiment, progress)
    training_seconds = store.seconds()
    trained: Trained = {config["algorithm"]["name"]: (experiment, best_theta)}
    trained |= train_baseline(console, store, check_folder, config, experiment, params, device)
    console.print(
        f"trained in {minutes_and_seconds(training_seconds)}; meta-testing on {config['eval']['tasks']} tasks ...",
        highlight=False,
    )
    report_results(console, store, config, trained, training_seconds)
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def open_store(
    folder: Path, check_folder: CheckFolder, config: Config, experiment: Experiment, device: torch.device
) -> CheckpointStore | NoStore:
    """The checkpoints in the folder; in processes other than the first, what takes their place."""
    if distributed.rank():
        return NoStore()
    run_facts = collect_facts(config, experiment.source, device)
    metadata = describe(config, experiment.source, run_facts["data"], environment(device))
    if not (folder / "config.yaml").exists():
        write_text_durably(folder / "config.yaml", dump_yaml(config))
    return CheckpointStore(folder, run_facts, check_folder, metadata)


def restored(store: CheckpointStore | NoStore, first: Progress, device: torch.device) -> Progress:
    """The progress in the first process's newest checkpoint, or ``first``, in all processes."""
    found = store.restore(first, note)
    if distributed.count() == 1:
        return found
    told = distributed.from_first(on_device(found, torch.device("cpu")))
    return on_device(told, device) if distributed.rank() else found


def on_device(tree: T, device: torch.device) -> T:
    """The tree with its tensors on the device."""
    return tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)


def train_baseline(
    console: Console,
    store: CheckpointStore | NoStore,
    check_folder: CheckFolder,
    config: Config,
    experiment: Experiment,
    params: Params,
    device: torch.device,
) -> Trained:
    """What ``train.baseline`` asks for: joint training, fine-tuning without any, or nothing."""
    kind = config["train"]["baseline"]
    if kind == "fine_tune":
        with progress_bar(console) as bar:
            task = bar.add_task(
                "the baseline: choosing how to fine-tune", total=len(list(candidates(config["data"]["name"])))
            )
            found = fine_tuned(config, experiment, params, lambda: bar.advance(task))
        return {found.name: (found.experiment, found.experiment.algorithm.init(params))}
    if not kind:
        return {}
    console.print("the baseline: the same network trained jointly, then fine-tuned")
    joint = joint_baseline(config, experiment)
    joint_first = first_progress(joint, params)
    if isinstance(store, NoStore):
        return {JOINT: (joint, fit(console, store, config, joint, restored(store, joint_first, device)))}
    folder = store.folder / "joint"
    folder.mkdir(exist_ok=True)
    about = store.metadata and {
        **store.metadata,
        "config": store.metadata["config"] | {"algorithm": joint_settings(config)},
    }
    joint_store = CheckpointStore(folder, store.facts | {"algorithm": "joint"}, check_folder, about)
    progress = restored(joint_store, joint_first, device)
    return {JOINT: (joint, fit(console, joint_store, config, joint, progress))}


def fit(
    console: Console, store: CheckpointStore | NoStore, config: Config, experiment: Experiment, progress: Progress
) -> Theta:
    """Train, writing metrics.jsonl, checkpoints and the best and last parameters; returns the best theta."""
    settings = TrainSettings(**config["train"])
    with open_log(console, store, experiment, progress, settings) as log:

        def save(progress: Progress) -> None:
            log.sync()  # so that every checkpoint has the rows before it
            store.save(progress)

        progress = train(experiment, progress, log, save, settings, config["eval"]["steps"])
        save(progress)
    store.finish(progress)
    return progress.best_theta


def open_log(
    console: Console,
    store: CheckpointStore | NoStore,
    experiment: Experiment,
    progress: Progress,
    settings: TrainSettings,
) -> RunLog | NoLog:
    """The log of the run from this progress on."""
    if isinstance(store, NoStore):
        return NoLog()
    path = store.folder / "metrics.jsonl"
    truncate_metrics(path, progress.state.step, progress.validated)
    metric = experiment.source.metric
    return RunLog(path, settings.meta_steps, metric, console, store.seconds(), store.check_folder)


def initial_params(experiment: Experiment, seed: int, device: torch.device) -> Params:
    """The model's initial parameters, drawn on the CPU so that a seed gives the same ones on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


def check_batch(config: Config, processes: int) -> None:
    """UserError if a process had no task."""
    settings = TrainSettings(**config["train"])
    if settings.tasks_of(processes) < processes:
        raise UserError(
            f"train.meta_batch = {settings.meta_batch}: fewer tasks than the {processes} processes; give at least "
            f"{processes}, or train.meta_batch_for=each"
        )


@torch.no_grad()
def check_algorithm(config: Config, experiment: Experiment, params: Params) -> None:
    """Compute the loss of one task; UserError if the tasks are malformed, or the algorithm does not work with them."""
    algorithm, source = experiment.algorithm, experiment.source
    for split in SPLITS:
        check_tasks(split, source.sample(split, 0, range(1)), source)
    task = take(source.sample("train", 0, range(1)), 0)
    try:
        algorithm.loss(algorithm.init(params), task)
    except ValueError as error:
        raise UserError(f"algorithm.name = {config['algorithm']['name']}: {error}") from error
    if in_context in source.settings:
        try:
            in_context(experiment.model.apply, source.metric.fn)(params, task)
        except (ValueError, IndexError, RuntimeError) as error:
            raise UserError(
                f"data.in_context = true: model.name = {config['model']['name']} cannot read the support "
                f"set and a query in one passage ({error}); give fewer or shorter passages, a longer context, or false"
            ) from error


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


def report_results(
    console: Console, store: CheckpointStore | NoStore, config: Config, trained: Trained, training_seconds: float
) -> None:
    """Meta-test, print the table, and write results.json, the model with its results, and the pictures."""
    settings = EvalSettings(**config["eval"])
    if isinstance(store, NoStore):
        score_all(console, None, trained, settings, {})
        return
    from . import report  # imports matplotlib, half a second that the first training step need not wait for

    experiment, theta = next(iter(trained.values()))
    source = experiment.source
    facts = {"data": store.facts["data"], "config": config["data"], "seed": config["seed"], "steps": settings.steps}
    scored = score_all(console, store.folder / "scores.jsonl", trained, settings, facts, store.check_folder)
    results = scored | references(source, settings)
    protocol = report.describe_protocol(config, source.about, minutes_and_seconds(training_seconds))
    title = f"{config['name']}: {source.metric.name} on unseen tasks"
    report.print_results(console, results, source.metric, title, protocol)
    if any(math.isnan(score.mean) for column in results.values() for score in column):
        console.print(f"not finite: the network diverges on test tasks; {CURE}", highlight=False, soft_wrap=True)
    evaluated = {"seed": config["seed"], **config["eval"], "training_seconds": round(training_seconds, 1)}
    about = {**source.about, **evaluated, "protocol": protocol}
    store.check_folder()
    report.write_results(store.folder / "results.json", results, source.metric, about)
    if store.metadata is not None:
        model = with_results(store.metadata, scored, settings.tasks, training_seconds)
        write_model(store.folder / "model.safetensors", flatten(theta), model)
    report.write_pictures(store.folder, experiment, theta, results, settings.steps)


def score_all(
    console: Console,
    path: Path | None,
    trained: Trained,
    settings: EvalSettings,
    facts: Facts,
    check_folder: CheckFolder = lambda: None,
) -> dict[str, list[Interval]]:
    """Column heading -> the metric after 0, 1, .. inner steps, for each algorithm and evaluation protocol.

    Scores are kept in the file ``path``, so that an interrupted test goes on; ``facts`` are what they depend on
    beside theta. ``check_folder`` is called before the file is written to. Without a ``path`` nothing is kept.
    """
    digests = {name: digest_of_theta(theta) for name, (_, theta) in trained.items()}
    saved = SavedScores(path, {**facts, "theta": digests}, check_folder) if path else NoScores()
    total = settings.tasks * sum(len(experiment.source.settings) for experiment, _ in trained.values())
    with progress_bar(console) as bar:
        task = bar.add_task("meta-testing", total=total)
        columns = {
            (name, protocol): column
            for name, (experiment, theta) in trained.items()
            for protocol, column in meta_test(
                experiment, theta, settings, saved=saved, advance=lambda tasks: bar.advance(task, tasks), name=name
            ).items()
        }
    protocols = {protocol for _, protocol in columns}
    return {
        column_heading(name, protocol, len(trained), protocols): column for (name, protocol), column in columns.items()
    }


def column_heading(name: str, protocol: str, algorithms: int, protocols: set[str]) -> str:
    """A column's heading: the algorithm, the protocol or both, whichever tells the columns apart."""
    if len(protocols) == 1 or (protocol == "transductive" and "in_context" in protocols):
        return name
    return PROTOCOL_HEADINGS[protocol] if algorithms == 1 else f"{name}, {PROTOCOL_HEADINGS[protocol]}"
