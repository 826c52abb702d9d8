"""Build the objects that a config names: data source, model, algorithm and optimizer."""

from inspect import signature
from typing import Any, NamedTuple

import torch

from ..data.source import Source
from ..errors import Error
from ..extras import describe_error, imported
from ..losses import supervised
from ..optim.optimizers import average_params, cosine
from ..optim.running import track_statistics
from ..optim.sharded import sharded
from ..optim.transforms import chain, clip_by_global_norm
from ..processes.torch_settings import set_precision, with_precision
from ..types import Algorithm, LossFn, Model, Optimizer
from .registry import find_entry, own_target
from .settings import Config, TrainSettings

RETURNED: dict[str, type] = {"data": Source, "model": Model, "algorithm": Algorithm, "optimizer": Optimizer}
INNER_LOOP_SETTINGS = ("inner_lr", "steps", "inner", "only")


class Experiment(NamedTuple):
    """The objects built from a config."""

    source: Source
    model: Model
    loss_fn: LossFn
    algorithm: Algorithm[Any]
    optimizer: Optimizer
    looped: bool = False  # whether tasks and queries run one after the other, because vmap cannot run the network


def build(config: Config, device: torch.device) -> Experiment:
    """Build the experiment of a validated config, with its data on the device.

    This also sets the precision of the process.
    """
    settings = TrainSettings(**config["train"])
    set_precision(settings.precision)
    source: Source = call_by_name("data", config["data"], seed=config["seed"], device=device)
    model: Model = call_by_name("model", config["model"], inputs=source.inputs, outputs=source.outputs)
    return assembled(config, source, with_precision(model, settings.precision, device))


def assembled(config: Config, source: Source, model: Model) -> Experiment:
    """The experiment of a validated config with this source and model."""
    loss_fn = source.loss(model.apply) if source.loss else supervised(model.apply, source.criterion)
    algorithm: Algorithm[Any] = call_by_name("algorithm", config["algorithm"], loss_fn=loss_fn, apply=model.apply)
    optimizer = outer_optimizer(config["optimizer"], TrainSettings(**config["train"]))
    return Experiment(source, model, loss_fn, algorithm, optimizer, config["train"]["batching"] == "loop")


def joint_baseline(config: Config, experiment: Experiment) -> Experiment:
    """The same experiment with joint training as its algorithm, fine-tuned by the inner loop of the original."""
    joint = call_by_name("algorithm", joint_settings(config), loss_fn=experiment.loss_fn)
    return experiment._replace(algorithm=joint)


def joint_settings(config: Config) -> Config:
    """The section `algorithm` of the baseline: joint training with the config's inner loop."""
    algorithm = config["algorithm"]
    return {"name": "joint", **{key: algorithm[key] for key in INNER_LOOP_SETTINGS if key in algorithm}}


def outer_optimizer(section: Config, settings: TrainSettings) -> Optimizer:
    """The optimizer of the section, with the train section's schedule, sharding, clipping and averaging."""
    if settings.schedule == "cosine":
        section = {**section, "lr": cosine(section["lr"], max(1, settings.meta_steps))}
    optimizer: Optimizer = call_by_name("optimizer", section)
    if settings.shard_optimizer:
        optimizer = sharded(optimizer)
    optimizer = optimizer if settings.clip is None else chain(clip_by_global_norm(settings.clip), optimizer)
    optimizer = track_statistics(optimizer)
    return optimizer if settings.average is None else average_params(optimizer, settings.average)


def call_by_name(section: str, settings: Config, **supplied: Any) -> Any:
    """Call the function that ``settings["name"]`` picks from the table, with the other settings.

    It also gets those ``supplied`` arguments that are among its parameters. Raises Error if the function raises
    ValueError. For code outside fmaml, an import that fails, any exception and a wrong return type raise Error too.
    """
    name = settings["name"]
    try:
        entry = find_entry(section, name)
        function = imported(entry.target)
        parameters = signature(function).parameters
        from_config = {key: value for key, value in settings.items() if key != "name"}
        from_run = {key: value for key, value in supplied.items() if key in parameters}
        made = function(**from_config, **from_run)
    except ValueError as error:
        raise Error(f"{section}.name = {name}: {error}") from error
    except Exception as error:
        if isinstance(error, Error) or not own_target(section, name):
            raise
        cause = str(error) if isinstance(error, ImportError) else describe_error(error)
        raise Error(f"{section}.name = {name}: {cause}; correct it, FMAML_DEBUG=1 shows the traceback") from error
    if problem := returned_problem(section, made, entry.gives):
        raise Error(f"{section}.name = {name}: {problem}")
    return made


def returned_problem(section: str, made: Any, gives: frozenset[str]) -> str:
    """The problem with the value that a section's function returned, or ""; ``gives`` are the declared traits."""
    kind = RETURNED[section]
    if not isinstance(made, kind):
        return f"it returned {type(made).__name__}, and must return fmaml.{'data.' * (kind is Source)}{kind.__name__}"
    if isinstance(made, Source) and (made.loss is not None) != ("own_loss" in gives):
        return 'Source.loss and "own_loss" in @gives(...) belong together; add the missing one, or remove both'
    missing = [key for key in ("task", "protocol") if kind is Source and key not in made.about]
    return f"Source.about lacks {' and '.join(missing)}, each a line for reports; add it" if missing else ""
