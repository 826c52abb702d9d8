"""Runs one experiment, from its config to its report."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from .. import distributed
from ..atomic_files import write_text_durably
from ..config.settings import Config, TrainSettings
from ..config.strict_yaml import dump_yaml
from ..data.files.cache_folder import writing
from ..errors import RunFailed, Stopped
from ..tree import leaves, map_leaves
from ..types import Params
from .build import Experiment, build
from .checks import check_algorithm, check_batch, check_same_facts
from .determinism import make_deterministic
from .durations import minutes_and_seconds
from .environment import environment, pick_device
from .fit import fit, restored, train_baseline
from .followers import NoStore, follows
from .known_features import with_known_features
from .launcher import launched, told_once
from .memory import check_model_fits, explain_out_of_memory, keep_freed_memory
from .output import lasting_stdout
from .processes import Processes, joined
from .results import Trained, Training, report_results
from .signals import deferred_signals
from .sinks.sinks import Sinks, check_sinks
from .store.checkpoint_format import Facts
from .store.checkpoint_store import CheckpointStore, Progress
from .store.held_folder import CheckFolder, held_folder
from .store.model_metadata import describe
from .store.resume_compatibility import collect_facts
from .store.run_folder import describe_os_error, run_folder
from .train import first_progress


def run(
    config: Config,
    *,
    device: str = "auto",
    out: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    formats: Sequence[str] = (),
) -> int:
    """Train, meta-test and report; returns the process's exit code. Pictures are also written in the ``formats``.

    Raises UserError if the config, the device or the folder cannot be used, RunFailed if the run cannot continue.
    """
    here = launched()
    with told_once(here):
        check_batch(config, here.world_size)
        check_sinks(config)
        torch_device = pick_device(device, here)
        make_deterministic(torch_device)
    with joined(here, torch_device) as processes:
        return run_in(processes, config, torch_device, out=out, dry_run=dry_run, resume=resume, formats=formats)


def run_in(
    processes: Processes,
    config: Config,
    torch_device: torch.device,
    *,
    out: str | None,
    dry_run: bool,
    resume: bool,
    formats: Sequence[str] = (),
) -> int:
    """The run in this process, which the others have joined; returns the exit code."""
    leads = processes.launched.rank == 0
    console = Console(file=lasting_stdout()) if leads else Console(quiet=True)
    if torch_device.type == "cpu":
        keep_freed_memory()
    with explain_out_of_memory(config), writing(not dry_run):
        experiment = processes.first_on_machine(lambda: build(config, torch_device))
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
        folder = distributed.from_first(folder)
        try:
            train_and_report(console, folder, check_folder, config, experiment, params, first, torch_device, formats)
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
    formats: Sequence[str],
) -> None:
    """Restore or start the run in its folder, train, and report; with ``train.baseline`` also train jointly."""
    facts = collect_facts(config, experiment.source, device)
    check_same_facts(facts)
    store = open_store(folder, check_folder, config, experiment, facts, device)
    progress = restored(store, first, TrainSettings(**config["train"]), device)
    if isinstance(store, CheckpointStore):
        write_text_durably(folder / "config.yaml", dump_yaml(config))  # a resumed run may have changed some settings
        write_text_durably(folder / "environment.json", json.dumps(environment(device), indent=2) + "\n")
    experiment = with_known_features(console, config, experiment, device)
    with Sinks(folder, config, () if isinstance(store, NoStore) else config["train"]["log_to"]) as sinks:
        progress = fit(console, store, config, experiment, progress, sinks)
        training = Training(store.seconds(), progress.state.step)
        trained: Trained = {config["algorithm"]["name"]: (experiment, progress.best_theta)}
        trained |= train_baseline(console, store, check_folder, config, experiment, params, device, sinks)
        console.print(
            f"trained in {minutes_and_seconds(training.seconds)}; meta-testing on {config['eval']['tasks']} tasks ...",
            highlight=False,
        )
        report_results(console, store, config, trained, training, sinks, formats)
    console.print(f"everything is in {folder}", highlight=False, markup=False, soft_wrap=True)


def open_store(
    folder: Path,
    check_folder: CheckFolder,
    config: Config,
    experiment: Experiment,
    facts: Facts,
    device: torch.device,
) -> CheckpointStore | NoStore:
    """The checkpoints in the folder; in processes other than the first, what takes their place."""
    if distributed.rank():
        return NoStore()
    metadata = describe(config, experiment.source, facts["data"], environment(device))
    if not (folder / "config.yaml").exists():
        write_text_durably(folder / "config.yaml", dump_yaml(config))
    return CheckpointStore(folder, facts, check_folder, metadata)


def initial_params(experiment: Experiment, seed: int, device: torch.device) -> Params:
    """The model's initial parameters, drawn on the CPU so that a seed gives the same ones on every device."""
    params = experiment.model.init(torch.Generator().manual_seed(seed))
    return map_leaves(lambda leaf: leaf.to(device), params)


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
