"""Run one experiment, from its config to its report."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.text import Text

from .. import distributed
from ..checkpoints.checkpoint_store import CheckpointStore
from ..checkpoints.folder_watch import CheckFolder, watched_folder
from ..checkpoints.progress import Progress
from ..checkpoints.resume_compatibility import collect_facts
from ..checkpoints.run_folder import describe_os_error, run_folder
from ..config.build import Experiment, build
from ..config.quick import has_images
from ..config.settings import Config, TrainSettings
from ..config.strict_yaml import dump_yaml
from ..errors import MissingData, RunFailed, Stopped, exit_code, note
from ..files.atomic import write_text_durably
from ..files.cache_folder import writing
from ..files.console import CleanConsole
from ..files.json_files import write_json_durably
from ..files.plain_text import minutes_and_seconds
from ..files.standard_output import pipe_safe_stdout
from ..models.metadata import describe
from ..processes.environment import environment, pick_device
from ..processes.join import Processes, joined
from ..processes.launcher import launched, report_once
from ..processes.signals import deferred_signals
from ..processes.torch_settings import make_deterministic, slow_precision
from ..tree import leaves, map_leaves
from ..types import Params
from .cuda_graph import check_graph
from .finish import Training, report_results
from .frozen_features import cache_frozen_features
from .memory import check_model_fits, explain_out_of_memory, keep_freed_memory
from .preflight import check_algorithm, check_batch, check_same_facts
from .resume_and_train import RunOutputs, Trained, first_progress, fit, restored, train_baseline
from .sinks import Sinks, check_sinks


def run(
    config: Config,
    *,
    device: str = "auto",
    out: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    formats: Sequence[str] = (),
    stand_in: Callable[[], Config] | None = None,
) -> int:
    """Train, meta-test and report; return the process's exit code. Pictures are also written in the ``formats``.

    If the files of the data set are missing, the config from ``stand_in`` runs instead.
    Raises Error if the config, the device or the folder cannot be used, RunFailed if the run cannot continue.
    """
    here = launched()
    with report_once(here):
        check_batch(config, here.world_size)
        check_sinks(config)
        torch_device = pick_device(device, here)
        check_graph(config, torch_device)
        make_deterministic(torch_device)
    console = CleanConsole(file=pipe_safe_stdout()) if here.rank == 0 else Console(quiet=True)
    with joined(here, torch_device) as processes:
        with writing(not dry_run):
            prepared = prepare_run(processes, config, torch_device, stand_in)
        print_description(console, prepared)
        if slow := slow_precision(prepared.config["train"]["precision"], torch_device):
            console.print(slow, soft_wrap=True)
        if dry_run:
            console.print("dry run: everything is in order; nothing was trained")
            return 0
        return train_in_folder(console, prepared, out, resume, formats)


class Prepared(NamedTuple):
    """A run that has passed its checks and can begin."""

    config: Config
    experiment: Experiment
    params: Params  # the network's initial parameters
    first: Progress
    device: torch.device


def prepare_run(
    processes: Processes, config: Config, device: torch.device, stand_in: Callable[[], Config] | None
) -> Prepared:
    """Build the run's objects, and check that they fit each other and the memory."""
    if device.type == "cpu":
        keep_freed_memory()
    with explain_out_of_memory(config):
        config, experiment = processes.first_on_machine(lambda: build_or_stand_in(config, device, stand_in))
        check_model_fits(config, experiment.model, device)
        params = initial_params(experiment, config["seed"], device)
        check_algorithm(config, experiment, params)
        return Prepared(
            config, experiment, params, first_progress(experiment, params, config["train"]["start"]), device
        )


def build_or_stand_in(
    config: Config, device: torch.device, stand_in: Callable[[], Config] | None
) -> tuple[Config, Experiment]:
    """The config and its experiment, or those of the stand-in if the data's files are missing."""
    try:
        return config, build(config, device)
    except MissingData:
        if stand_in is None:
            raise
    with report_once(launched()):
        note(f"no files of {config['data']['name']} on this computer: using built-in drawn characters instead")
        config = stand_in()
    return config, build(config, device)


def train_in_folder(console: Console, prepared: Prepared, out: str | None, resume: bool, formats: Sequence[str]) -> int:
    """Train and report in the run's folder; return the exit code."""
    config = prepared.config
    with deferred_signals(), explain_out_of_memory(config), contextlib.ExitStack() as stack:
        folder, check_folder = Path(), lambda: None  # only the first process has a folder to check
        if distributed.rank() == 0:
            folder = stack.enter_context(run_folder(out, config["name"], resume))
            check_folder = stack.enter_context(watched_folder(folder))
        folder = distributed.broadcast(folder)
        try:
            train_and_report(console, folder, check_folder, prepared, formats)
        except Stopped as stop:
            message = f"stopped; `fmaml resume {folder}` continues"
            console.print(message, soft_wrap=True)
            return exit_code(stop)
        except OSError as error:
            check_folder()
            raise RunFailed(f"{error.filename or folder}: {describe_os_error(error, folder)}") from error
    return 0


def train_and_report(
    console: Console, folder: Path, check_folder: CheckFolder, prepared: Prepared, formats: Sequence[str]
) -> None:
    """Restore or start the run in its folder, train it and the baseline, and report."""
    config, experiment, params, first, device = prepared
    facts = collect_facts(config, experiment.source, device)
    check_same_facts(facts)
    store = CheckpointStore(folder, facts, check_folder) if distributed.rank() == 0 else None
    if store and not (folder / "config.yaml").exists():
        write_text_durably(folder / "config.yaml", dump_yaml(config))
    progress = restored(store, first, TrainSettings(**config["train"]), device)
    metadata = {}
    if store:
        measured = environment(device)
        metadata = describe(config, experiment.source, facts["data"], measured)
        write_text_durably(folder / "config.yaml", dump_yaml(config))  # a resumed run may have changed some settings
        write_json_durably(folder / "environment.json", measured)
    experiment = cache_frozen_features(console, config, experiment, device)
    with Sinks(folder, config, config["train"]["log_to"] if store else ()) as sinks:
        outputs = RunOutputs(console, sinks, store, metadata)
        progress = fit(outputs, config, experiment, progress)
        training = Training(store.seconds() if store else 0.0, progress.state.step)
        trained: Trained = {config["algorithm"]["name"]: (experiment, progress.best_theta)}
        trained |= train_baseline(outputs, config, experiment, params, device)
        console.print(
            f"trained in {minutes_and_seconds(training.seconds)}; meta-testing on {config['eval']['tasks']} tasks ...",
        )
        report_results(outputs, config, trained, training, formats)
    for line in (f"everything is in {folder}", *next_steps(config, folder)):
        console.print(line, soft_wrap=True)


def next_steps(config: Config, folder: Path) -> list[str]:
    """Suggestions for a finished run, one a line."""
    lines = [f"open {folder}/report.html: results, learning curve, test tasks"]
    if has_images(config):
        lines.append(f"next: `fmaml predict {folder} --support MY_CLASSES PICTURE` names pictures of your own")
        lines.append(
            "      (MY_CLASSES holds a folder of examples for each class); `fmaml demo` opens a page to draw on"
        )
    return lines


def initial_params(experiment: Experiment, seed: int, device: torch.device) -> Params:
    """The model's initial parameters, drawn on the CPU so that a seed gives the same ones on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


def print_description(console: Console, prepared: Prepared) -> None:
    """Print what will be trained: algorithm, data, protocol, model, device."""
    config, experiment, params, _, device = prepared
    size = sum(leaf.numel() for leaf in leaves(params))
    about = (
        f": {config['algorithm']['name']} on {config['data']['name']}, "
        f"{experiment.source.about['protocol']}; {config['model']['name']} with {size:,} parameters, on {device}"
    )
    line = Text.assemble((config["name"], "bold"), about)
    console.print(line, soft_wrap=not console.is_terminal)  # one line in a log file
