"""Builds what a config names: the data source, the model, the algorithm and the optimizer."""

from inspect import signature
from typing import Any, NamedTuple

import torch

from ..data.source import Source
from ..errors import Error
from ..extras import describe_error, imported
from ..losses import supervised
from ..optim.optimizers import average_params, cosine
from ..optim.sharded import sharded
from ..optim.transforms import chain, clip_by_global_norm
from ..processes.torch_settings import set_precision, with_precision
from ..types import Algorithm, LossFn, Model, Optimizer
from .registry import find_entry, own_target
from .settings import Config, TrainSettings

RETURNED: dict[str, type] = {"data": Source, "model": Model, "algorithm": Algorithm, "optimizer": Optimizer}
INNER_LOOP_SETTINGS = ("inner_lr", "steps", "inner", "only")


class Experiment(NamedTuple):
    """All that a config builds."""

    source: Source
    model: Model
    loss_fn: LossFn
    algorithm: Algorithm[Any]
    optimizer: Optimizer


def build(config: Config, device: torch.device) -> Experiment:
    """The experiment of a validated config, its data on the device; also sets the precision of this process."""
    settings = TrainSettings(**config["train"])
    set_precision(settings.precision)
    source: Source = call_by_name("data", config["data"], seed=config["seed"], device=device)
    model: Model = call_by_name("model", config["model"], inputs=source.inputs, outputs=source.outputs)
    model = with_precision(model, settings.precision, device)
    loss_fn = source.loss(model.apply) if source.loss else supervised(model.apply, source.criterion)
    algorithm: Algorithm[Any] = call_by_name("algorithm", config["algorithm"], loss_fn=loss_fn, apply=model.apply)
    return Experiment(source, model, loss_fn, algorithm, outer_optimizer(config["optimizer"], settings))


def joint_baseline(config: Config, experiment: Experiment) -> Experiment:
    """The same experiment with joint training, fine-tuned by the algorithm's inner loop, as its algorithm."""
    joint = call_by_name("algorithm", joint_settings(config), loss_fn=experiment.loss_fn)
    return experiment._replace(algorithm=joint)


def joint_settings(config: Config) -> Config:
    """The section `algorithm` of the baseline: joint training with the inner loop of the config's algorithm."""
    algorithm = config["algorithm"]
    return {"name": "joint", **{key: algorithm[key] for key in INNER_LOOP_SETTINGS if key in algorithm}}


def outer_optimizer(section: Config, settings: TrainSettings) -> Optimizer:
    """The optimizer of the section, with what the train section asks for: schedule, sharding, clipping, averaging."""
    if settings.schedule == "cosine":
        section = {**section, "lr": cosine(section["lr"], max(1, settings.meta_steps))}
    optimizer: Optimizer = call_by_name("optimizer", section)
    if settings.shard_optimizer:
        optimizer = sharded(optimizer)
    optimizer = optimizer if settings.clip is None else chain(clip_by_global_norm(settings.clip), optimizer)
    return optimizer if settings.average is None else average_params(optimizer, settings.average)


def call_by_name(section: str, settings: Config, **supplied: Any) -> Any:
    """The result of the function that ``settings["name"]`` picks from the table, called with the other settings.

    It also gets those of the ``supplied`` arguments that are among its parameters. Raises Error where the function
    refuses its arguments by a ValueError; and where code outside fmaml cannot be imported, raises any error, or returns
    something else than the section needs.
    """
    name = settings["name"]
    try:
        function = imported(find_entry(section, name).target)
        parameters = signature(function).parameters
        from_config = {key: value for key, value in settings.items() if key != "name"}
        from_run = {key: value for key, value in supplied.items() if key in parameters}
        made = function(**from_config, **from_run)
    except ValueError as error:
        raise Error(f"{section}.name = {name}: {error}") from error
    except Exception as error:
        if isinstance(error, Error) or not own_target(section, name):
            raise
        said = str(error) if isinstance(error, ImportError) else describe_error(error)
        raise Error(f"{section}.name = {name}: {said}; correct it, FMAML_DEBUG=1 shows the traceback") from error
    if problem := what_is_wrong(section, made):
        raise Error(f"{section}.name = {name}: {problem}")
    return made


def what_is_wrong(section: str, made: Any) -> str:
    """What is wrong with the value that a section's function returned; empty if nothing is."""
    kind = RETURNED[section]
    if not isinstance(made, kind):
        return f"it returned {type(made).__name__}, and must return fmaml.{'data.' * (kind is Source)}{kind.__name__}"
    missing = [key for key in ("task", "protocol") if kind is Source and key not in made.about]
    return f"Source.about lacks {' and '.join(missing)}, each a line for reports; add it" if missing else ""
