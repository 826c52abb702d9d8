"""Training from a checkpoint or from the beginning, with its log and its checkpoints, and that of the baseline."""

import os
from pathlib import Path

import torch
from rich.console import Console
from torch.utils._pytree import tree_map_only

from .. import distributed
from ..checkpoints.checkpoint_store import CheckpointStore, Progress
from ..checkpoints.folder_watch import CheckFolder
from ..config.build import Experiment, joint_baseline, joint_settings
from ..config.quick import quick_settings
from ..config.settings import Config, TrainSettings
from ..errors import RunFailed, note
from ..meta_testing.fine_tuning import candidates, fine_tuned
from ..optim.sharded import own_state, whole_state
from ..tree import T, flat_of
from ..types import OptState, Params
from .finish import Trained
from .log import RunLog, logged_rows, progress_bar, truncate_metrics
from .sinks import Sinks
from .time_left import Pace, work_of
from .train import first_progress, train

JOINT = "joint training, fine-tuned"


def restored(store: CheckpointStore | None, first: Progress, settings: TrainSettings, device: torch.device) -> Progress:
    """The progress in the newest checkpoint, or ``first``, in all processes; only the first has the ``store``."""
    found = to_save(first, settings)
    if store:
        found = store.restore(found, note)
    if distributed.count() > 1:
        told = distributed.from_first(on_device(found, torch.device("cpu")))
        found = on_device(told, device) if distributed.rank() else found
    if not settings.shard_optimizer:
        return found
    return with_opt_state(found, own_state(found.state.opt_state, found.state.theta))


def to_save(progress: Progress, settings: TrainSettings) -> Progress:
    """The progress with the optimizer's state of all processes, so that any number of them can go on from it."""
    if not settings.shard_optimizer:
        return progress
    return with_opt_state(progress, whole_state(progress.state.opt_state, progress.state.theta))


def with_opt_state(progress: Progress, opt_state: OptState) -> Progress:
    """The progress with this state of the optimizer."""
    return progress._replace(state=progress.state._replace(opt_state=opt_state))


def on_device(tree: T, device: torch.device) -> T:
    """The tree with its tensors on the device."""
    return tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)


def fit(
    console: Console,
    store: CheckpointStore | None,
    config: Config,
    experiment: Experiment,
    progress: Progress,
    sinks: Sinks,
) -> Progress:
    """Train, writing metrics.jsonl, checkpoints and the best and last parameters; returns the progress at the end."""
    settings = TrainSettings(**config["train"])
    with open_log(console, store, config, experiment, progress, sinks) as log:

        def save(progress: Progress) -> None:
            check_alike(progress)
            whole = to_save(progress, settings)
            if store:
                log.sync()  # so that every checkpoint has the rows before it
                store.save(whole)

        progress = train(experiment, progress, log, save, settings, config["eval"]["steps"])
        save(progress)
    whole = to_save(progress, settings)
    if store:
        store.finish(whole)
    return progress


def check_alike(progress: Progress) -> None:
    """RunFailed unless all processes have the same theta: each steps by itself, on numbers that must be the same."""
    if not distributed.same_everywhere(flat_of(progress.state.theta)):
        raise RunFailed(
            f"step {progress.state.step}: the processes have come to different parameters, so their machines compute "
            f"differently; use machines of one kind and one torch"
        )


def open_log(
    console: Console,
    store: CheckpointStore | None,
    config: Config,
    experiment: Experiment,
    progress: Progress,
    sinks: Sinks,
) -> RunLog:
    """The log of the run from this progress on; the ``sinks`` have what was logged before.

    Without a store, as in processes other than the first, it goes nowhere.
    """
    pace = Pace(work_of(config, experiment.source, progress.state.step))
    metric, shorter = experiment.source.metric, bool(quick_settings(config))
    if not store:
        return RunLog(Path(os.devnull), pace, metric, console, 0.0, lambda: None, sinks)
    path = store.folder / "metrics.jsonl"
    truncate_metrics(path, progress.state.step, progress.validated)
    if sinks.open:
        sinks.replay(logged_rows(path))
    return RunLog(path, pace, metric, console, store.seconds(), store.check_folder, sinks, shorter)


def train_baseline(
    console: Console,
    store: CheckpointStore | None,
    check_folder: CheckFolder,
    config: Config,
    experiment: Experiment,
    params: Params,
    device: torch.device,
    sinks: Sinks,
) -> Trained:
    """What ``train.baseline`` asks for: joint training, fine-tuning without any, or nothing."""
    kind = config["train"]["baseline"]
    if kind == "fine_tune":
        with progress_bar(console) as bar:
            task = bar.add_task(
                "the baseline: choosing how to fine-tune", total=len(list(candidates(config["data"]["name"], params)))
            )
            found = fine_tuned(config, experiment, params, lambda: bar.advance(task))
        return {found.name: (found.experiment, found.experiment.algorithm.init(params))}
    if not kind:
        return {}
    console.print("the baseline: the same network trained jointly, then fine-tuned")
    joint, settings = joint_baseline(config, experiment), TrainSettings(**config["train"])
    joint_first = first_progress(joint, params)
    if not store:
        progress = restored(store, joint_first, settings, device)
        return {JOINT: (joint, fit(console, store, config, joint, progress, sinks).best_theta)}
    folder = store.folder / "joint"
    folder.mkdir(exist_ok=True)
    about = store.metadata and {
        **store.metadata,
        "config": store.metadata["config"] | {"algorithm": joint_settings(config)},
    }
    joint_store = CheckpointStore(folder, store.facts | {"algorithm": "joint"}, check_folder, about)
    progress = restored(joint_store, joint_first, settings, device)
    with sinks.of("joint"):
        progress = fit(console, joint_store, config, joint, progress, sinks)
    return {JOINT: (joint, progress.best_theta)}
