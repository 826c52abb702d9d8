"""Learners as they are before training: enough to test what is done with a learner, in no time."""

from typing import Any

import torch

from fmaml.deploy.learner import Learner
from fmaml.deploy.network import read_blueprint

DRAWINGS = {"size": 28, "channels": 1, "fit": "pad", "invert": True}
CONV4 = {"name": "conv4", "width": 16}
MAML = {"name": "maml", "inner_lr": 0.1, "steps": 1}
PROTONET = {"name": "protonet"}


def untrained(model: dict[str, Any], algorithm: dict[str, Any], **facts: Any) -> Learner:
    """A learner with random parameters; by default of drawings, 5 classes, one inner step."""
    metadata = {
        **{"kind": "learner", "name": "untrained", "config": {"model": model, "algorithm": algorithm}, "steps": 1},
        **{"inputs": [1, 28, 28], "outputs": 5, "targets": "classes", "form": DRAWINGS, **facts},
    }
    blueprint = read_blueprint(metadata, "untrained")
    network = blueprint.build(blueprint.outputs)
    params = network.model.init(torch.Generator().manual_seed(0))
    return Learner(metadata, blueprint, network.algorithm.init(params))
