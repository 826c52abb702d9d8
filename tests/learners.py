"""Learners and pictures that the tests of this folder share."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fmaml.data.sources.glyphs import draw_all_characters
from fmaml.models.blueprint import read_blueprint
from fmaml.models.learner import Learner
from fmaml.tree import map_leaves

DRAWINGS = {"size": 28, "channels": 1, "fit": "pad", "invert": True}
RATES = {"inner_lr": 0.1, "steps": 2}
CONV4 = {"name": "conv4", "width": 8}
MAML = {"name": "maml", "inner_lr": 0.1, "steps": 1}
PROTONET = {"name": "protonet"}


def untrained(model: dict[str, Any], algorithm: dict[str, Any], dtype=torch.float32, **facts: Any) -> Learner:
    """A learner as it is before training, by default of drawings and 5 classes: enough to test what is done with it."""
    metadata = {
        **{"kind": "learner", "name": "untrained", "config": {"model": model, "algorithm": algorithm}, "steps": 2},
        **{"inputs": [1, 28, 28], "outputs": 5, "targets": "classes", "form": DRAWINGS, **facts},
    }
    blueprint = read_blueprint(metadata, "untrained")
    network = blueprint.build(blueprint.outputs)
    params = network.model.init(torch.Generator().manual_seed(0))
    return Learner(metadata, blueprint, network.algorithm.init(map_leaves(lambda leaf: leaf.to(dtype), params)))


def draw_characters(folder: Path, support: int, queries: int, classes: int = 5) -> Path:
    """Drawings of test characters as PNG files, dark on white: ``support/NAME/*``, and ``new/NAME-*``."""
    drawings = draw_all_characters()[1200 : 1200 + classes]
    for i, of_class in enumerate(drawings):
        (folder / "support" / f"c{i}").mkdir(parents=True)
        (folder / "new").mkdir(exist_ok=True)
        for j, drawing in enumerate(of_class[: support + queries]):
            image = Image.fromarray(255 - drawing[0].numpy())
            image.save(folder / (f"support/c{i}/{j}.png" if j < support else f"new/c{i}-{j}.png"))
    return folder
