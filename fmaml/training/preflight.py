"""Checks of a run's objects before it begins."""

import hashlib
from pathlib import Path

import torch

from .. import distributed
from ..checkpoints.checkpoint_format import Facts
from ..config.build import Experiment
from ..config.config_diff import differing
from ..config.settings import Config, TrainSettings
from ..data.source import SPLITS, check_tasks
from ..data.text.generate import in_context
from ..errors import Ended, Error
from ..outer import meta_grad, meta_loss
from ..tree import take
from ..types import Params, Task


def check_batch(config: Config, processes: int) -> None:
    """Raise Error if a process has no task."""
    settings = TrainSettings(**config["train"])
    if settings.tasks_of(processes) < processes:
        raise Error(
            f"train.meta_batch = {settings.meta_batch}: fewer tasks than the {processes} processes; give at least "
            f"{processes}, or train.meta_batch_for=each"
        )


@torch.no_grad()
def check_algorithm(config: Config, experiment: Experiment, params: Params) -> None:
    """Compute the meta-gradient of one task; Error if a task is malformed or the algorithm does not accept it.

    Without training only the loss is computed: prototypes of frozen features have no gradient.
    """
    algorithm, source = experiment.algorithm, experiment.source
    if config["train"]["shard_optimizer"]:
        try:
            experiment.optimizer.init(algorithm.init(params))
        except ValueError as error:
            raise Error(f"train.shard_optimizer = true: {error}") from error
    for split in SPLITS:
        check_tasks(split, source.sample(split, 0, range(1)), source)
    tasks = source.sample("train", 0, range(1))
    task = take(tasks, 0)
    if config["model"]["name"] == "module":
        check_own_network(config, experiment, params, task)
    try:
        compute = meta_grad if config["train"]["meta_steps"] else meta_loss
        compute(algorithm, algorithm.init(params), tasks, batching="loop" if experiment.looped else "vmap")
    except ValueError as error:
        raise Error(f"algorithm.name = {config['algorithm']['name']}: {error}") from error
    if in_context in source.settings:
        try:
            in_context(experiment.model.apply, source.metric.fn)(params, task)
        except (ValueError, IndexError, RuntimeError) as error:
            raise Error(
                f"data.in_context = true: model.name = {config['model']['name']} cannot read support set and query in "
                f"one passage ({error}); give fewer or shorter passages, a longer context, or false"
            ) from error


def check_own_network(config: Config, experiment: Experiment, params: Params, task: Task) -> None:
    """Raise Error unless the user's network takes the task's inputs and gives the right number of outputs."""
    source, x = experiment.source, task.support.x
    where = f"model.module = {config['model']['module']}"
    try:
        output = experiment.model.apply(params, x)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise Error(f"{where}: the network does not take inputs of {list(x.shape)}: {reason}") from error
    if output.ndim == 2 and output.shape[1] != source.outputs:
        raise Error(
            f"{where}: the network gives {output.shape[1]} outputs, and it must give {source.outputs}; give the "
            f"function a parameter named outputs, which receives that number"
        )


def check_same_facts(facts: Facts) -> None:
    """Raise Error, in rank 0, unless all processes have the same settings, data, versions and code."""
    compared = {key: value for key, value in facts.items() if key != "machine"}
    gathered = distributed.gather(compared | {"fmaml's code": code_digest()})
    for rank, other in enumerate(gathered):
        for key, (first, here) in differing([gathered[0], other]).items():
            if distributed.rank():
                raise Ended
            values = "" if key.startswith("data.") else f" ({first} in rank 0, {here} here)"
            name = key.removeprefix("config.")
            raise Error(f"rank {rank}: {name} differs{values}; start all processes with one command and the same data")


def code_digest() -> str:
    """A digest of the package's source, which differs between two checkouts of one version."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
