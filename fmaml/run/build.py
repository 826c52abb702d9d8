"""Where strings meet code: what a config builds."""

from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

import torch

from ..config.registry import TABLE
from ..config.settings import TrainSettings
from ..data.source import Source
from ..losses import supervised
from ..optim import chain, clip_by_global_norm, cosine
from ..types import Algorithm, LossFn, Model, Optimizer
from .precision import lowered, set_precision


class Experiment(NamedTuple):
    """All that a config builds."""

    source: Source
    model: Model
    loss_fn: LossFn
    algorithm: Algorithm[Any]
    optimizer: Optimizer


def build(config: dict[str, Any], device: torch.device) -> Experiment:
    """The experiment of a checked config, its data on the device; sets the process's precision."""
    settings = TrainSettings(**config["train"])
    set_precision(settings.precision)
    source: Source = call("data", config["data"], seed=config["seed"], device=device)
    model: Model = call("model", config["model"], inputs=source.inputs, outputs=source.outputs)
    model = lowered(model, settings.precision, device)
    loss_fn = supervised(model.apply, source.criterion)
    algorithm: Algorithm[Any] = call("algorithm", config["algorithm"], loss_fn=loss_fn, apply=model.apply)
    return Experiment(source, model, loss_fn, algorithm, outer_optimizer(config["optimizer"], settings))


def baseline(config: dict[str, Any], experiment: Experiment) -> Experiment:
    """The same experiment with joint training and fine-tuning, by the same inner loop, in place of its algorithm."""
    own = config["algorithm"]
    settings = {"name": "joint"} | {key: own[key] for key in ("inner_lr", "steps", "inner", "only") if key in own}
    return experiment._replace(algorithm=call("algorithm", settings, loss_fn=experiment.loss_fn))


def outer_optimizer(section: dict[str, Any], settings: TrainSettings) -> Optimizer:
    """The optimizer of the section, with the schedule and the clipping that the train section asks for."""
    if settings.schedule == "cosine":
        section = {**section, "lr": cosine(section["lr"], max(1, settings.meta_steps))}
    step: Optimizer = call("optimizer", section)
    return step if settings.clip is None else chain(clip_by_global_norm(settings.clip), step)


def call(section: str, settings: dict[str, Any], **supplied: Any) -> Any:
    """What the function that ``settings["name"]`` picks makes of the other settings and of what is ``supplied``.

    Of ``supplied`` it is given what its signature names.
    """
    module, _, name = TABLE[section][settings["name"]].target.partition(":")
    function = getattr(import_module(module), name)
    takes = signature(function).parameters
    keywords = {key: value for key, value in settings.items() if key != "name"}
    return function(**keywords, **{key: value for key, value in supplied.items() if key in takes})
