"""Where strings meet code: what a config builds. It imports torch to build."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.registry import TABLE
from ..config.signature import definition

if TYPE_CHECKING:
    import torch

    from ..data.source import Source
    from ..types import Algorithm, LossFn, Model, Optimizer


class Experiment(NamedTuple):
    source: "Source"
    model: "Model"
    loss_fn: "LossFn"
    algorithm: "Algorithm"
    optimizer: "Optimizer"


def build(config: dict[str, Any], device: "torch.device") -> Experiment:
    from ..losses import supervised
    from .precision import lowered, set_precision

    set_precision(config["train"]["precision"])
    source = call("data", config["data"], seed=config["seed"], device=device)
    model = call("model", config["model"], inputs=source.inputs, outputs=source.outputs)
    model = lowered(model, config["train"]["precision"], device)
    loss_fn = supervised(model.apply, source.criterion)
    given = {"loss_fn": loss_fn, "apply": model.apply}
    algorithm = call("algorithm", config["algorithm"], **{key: given[key] for key in asked(config, given)})
    return Experiment(source, model, loss_fn, algorithm, optimizer(config))


def asked(config: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """What of the ``given`` the algorithm's signature names: the loss, and for a few the network itself."""
    takes = definition(TABLE["algorithm"][config["algorithm"]["name"]]).args
    return [arg.arg for arg in (*takes.args, *takes.kwonlyargs) if arg.arg in given]


def baseline(config: dict[str, Any], experiment: Experiment) -> Experiment:
    """The same experiment with joint training and fine-tuning, by the same inner loop, in place of its algorithm."""
    own = config["algorithm"]
    settings = {"name": "joint"} | {key: own[key] for key in ("inner_lr", "steps", "inner", "only") if key in own}
    return experiment._replace(algorithm=call("algorithm", settings, loss_fn=experiment.loss_fn))


def optimizer(config: dict[str, Any]) -> "Optimizer":
    """The outer optimizer, with the schedule and the clipping that the train section asks for."""
    from ..optim import chain, clip_by_global_norm, cosine

    section, train = config["optimizer"], config["train"]
    if train["schedule"] == "cosine":
        section = {**section, "lr": cosine(section["lr"], max(1, train["meta_steps"]))}
    step = call("optimizer", section)
    return step if train["clip"] is None else chain(clip_by_global_norm(train["clip"]), step)


def call(section: str, settings: dict[str, Any], **given: Any) -> Any:
    """The function that ``settings["name"]`` picks, called with the other settings and what is ``given``."""
    module, _, function = TABLE[section][settings["name"]].partition(":")
    keywords = {key: value for key, value in settings.items() if key != "name"}
    return getattr(import_module(module), function)(**keywords, **given)
