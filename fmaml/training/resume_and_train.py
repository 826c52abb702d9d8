"""Train the algorithm and the baseline, from a checkpoint or from the start, with log and checkpoints."""

import math
import os
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch.utils._pytree import tree_map_only

from .. import distributed
from ..checkpoints.checkpoint_format import flatten
from ..checkpoints.checkpoint_store import CheckpointStore
from ..checkpoints.progress import Progress
from ..config.build import Experiment, joint_baseline, joint_settings
from ..config.quick import quick_settings
from ..config.settings import Config, TrainSettings
from ..errors import RunFailed, note
from ..meta_testing.fine_tuning import candidates, fine_tuned
from ..models.model_file import Metadata, write_model
from ..models.start_from import start_from
from ..optim.sharded import own_state, whole_state
from ..outer import init_state
from ..tree import T, flat_of
from ..types import OptState, Params, Theta
from .log import RunLog, progress_bar, truncate_metrics
from .sinks import Sinks
from .time_left import Pace, work_of
from .train import train

JOINT = "joint training, fine-tuned"
Trained = dict[str, tuple[Experiment, Theta]]  # name -> the experiment, and its best theta


class RunOutputs(NamedTuple):
    """Where a process writes. All but the first have no ``store``, and their console and sinks show nothing."""

    console: Console
    sinks: Sinks
    store: CheckpointStore | None
    metadata: Metadata  # of the models that the run writes, without the results of meta-testing


class ModelFiles:
    """Writes the models best.safetensors and last.safetensors, with metadata, into a store's folder."""

    def __init__(self, store: CheckpointStore, metadata: Metadata) -> None:
        self.store = store
        self.metadata = metadata
        self.written: Theta = None  # in best.safetensors

    def write_best(self, theta: Theta) -> None:
        """Write the best parameters, unless they are already written; RunFailed if the run's folder is gone."""
        if theta is not self.written:
            self._write("best.safetensors", theta)
            self.written = theta

    def write_last(self, theta: Theta) -> None:
        """Write the last parameters; RunFailed if the run's folder is gone."""
        self._write("last.safetensors", theta)

    def _write(self, name: str, theta: Theta) -> None:
        self.store.check_folder()
        write_model(self.store.folder / name, flatten(theta), self.metadata)


def first_progress(experiment: Experiment, params: Params, start: str | None = None) -> Progress:
    """The progress before the first meta-step, from the network's initial parameters or from the model ``start``.

    Raises Error if that model has another network.
    """
    state = init_state(experiment.algorithm, experiment.optimizer, params)
    if start is not None:
        theta = start_from(start, state.theta, params)
        state = state._replace(theta=theta, opt_state=experiment.optimizer.init(theta))
    return Progress(state, -math.inf, state.theta)


def restored(store: CheckpointStore | None, first: Progress, settings: TrainSettings, device: torch.device) -> Progress:
    """Restore the first process's newest checkpoint, else ``first``, in all processes."""
    found = to_save(first, settings)
    if store is not None:
        found = store.restore(found, note)
    if distributed.world_size() > 1:
        received = distributed.broadcast(on_device(found, torch.device("cpu")))
        found = on_device(received, device) if distributed.rank() else found
    if not settings.shard_optimizer:
        return found
    return with_opt_state(found, own_state(found.state.opt_state, found.state.theta))


def to_save(progress: Progress, settings: TrainSettings) -> Progress:
    """The progress with the optimizer's state of all processes, so that any number of them can continue."""
    if not settings.shard_optimizer:
        return progress
    return with_opt_state(progress, whole_state(progress.state.opt_state, progress.state.theta))


def with_opt_state(progress: Progress, opt_state: OptState) -> Progress:
    """The progress with this state of the optimizer."""
    return progress._replace(state=progress.state._replace(opt_state=opt_state))


def on_device(tree: T, device: torch.device) -> T:
    """The tree with its tensors on the device."""
    return tree_map_only(torch.Tensor, lambda leaf: leaf.to(device), tree)


def fit(outputs: RunOutputs, config: Config, experiment: Experiment, progress: Progress) -> Progress:
    """Train; write metrics.jsonl, checkpoints, the best and the last parameters; return the final progress."""
    settings, store = TrainSettings(**config["train"]), outputs.store
    models = ModelFiles(store, outputs.metadata) if store else None
    with open_log(outputs, config, experiment, progress) as log:

        def save(progress: Progress) -> None:
            check_alike(progress)
            whole = to_save(progress, settings)
            if store and models:
                log.sync()  # the rows before a checkpoint must be on disk before it
                store.save(whole)
                if progress.best > -math.inf:
                    models.write_best(progress.best_theta)

        progress = train(experiment, progress, log, save, settings, config["eval"]["steps"])
        save(progress)
    if models:
        models.write_best(progress.best_theta)
        models.write_last(progress.model)
    return progress


def check_alike(progress: Progress) -> None:
    """Raise RunFailed unless all processes have the same theta, which each of them updates by itself."""
    if not distributed.all_equal(flat_of(progress.state.theta)):
        raise RunFailed(
            f"step {progress.state.step}: the processes have different parameters, so their machines compute "
            f"differently; use machines of one kind and one version of torch"
        )


def open_log(outputs: RunOutputs, config: Config, experiment: Experiment, progress: Progress) -> RunLog:
    """The log of the run from this progress on; the earlier rows are replayed to the sinks.

    Without a store (in all processes but the first), nothing is written.
    """
    console, sinks, store, _ = outputs
    pace = Pace(work_of(config, experiment.source, progress.state.step))
    metric, shorter = experiment.source.metric, bool(quick_settings(config))
    if not store:
        return RunLog(Path(os.devnull), pace, metric, console, 0.0, lambda: None, sinks)
    path = store.folder / "metrics.jsonl"
    rows = truncate_metrics(path, progress.state.step, progress.validated)
    sinks.replay(rows)
    return RunLog(path, pace, metric, console, store.seconds(), store.check_folder, sinks, shorter)


def train_baseline(
    outputs: RunOutputs, config: Config, experiment: Experiment, params: Params, device: torch.device
) -> Trained:
    """What ``train.baseline`` asks for: joint training, fine-tuning without any, the first model, or nothing."""
    kind = config["train"]["baseline"]
    if kind == "fine_tune":
        with progress_bar(outputs.console) as bar:
            task = bar.add_task(
                "the baseline: choosing how to fine-tune", total=len(list(candidates(config["data"]["name"], params)))
            )
            found = fine_tuned(config, experiment, params, lambda: bar.advance(task))
        return {found.name: (found.experiment, found.experiment.algorithm.init(params))}
    if kind == "start":
        start = config["train"]["start"]
        return {f"{start}, as it was": (experiment, first_progress(experiment, params, start).state.theta)}
    if not kind:
        return {}
    outputs.console.print("the baseline: the same network trained jointly, then fine-tuned")
    joint, outputs = joint_baseline(config, experiment), of_joint_baseline(outputs, config)
    progress = restored(outputs.store, first_progress(joint, params), TrainSettings(**config["train"]), device)
    with outputs.sinks.of("joint"):
        progress = fit(outputs, config, joint, progress)
    return {JOINT: (joint, progress.best_theta)}


def of_joint_baseline(outputs: RunOutputs, config: Config) -> RunOutputs:
    """The outputs of the joint baseline: the folder ``joint`` in the run's folder, and the algorithm's metadata."""
    store = outputs.store
    if store is None:
        return outputs
    folder = store.folder / "joint"
    folder.mkdir(exist_ok=True)
    own = CheckpointStore(folder, store.facts | {"algorithm": "joint"}, store.check_folder)
    settings = outputs.metadata["config"] | {"algorithm": joint_settings(config)}
    return outputs._replace(store=own, metadata={**outputs.metadata, "config": settings})
