"""Learners and pictures that the tests of this folder share."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fmaml.config.validate import validate_sections
from fmaml.data.images.decode import CHARACTER_FORM
from fmaml.data.sources.glyphs import draw_all_characters
from fmaml.deploy.learner import Learner
from fmaml.deploy.network import Blueprint
from fmaml.tree import map_leaves

RATES = {"inner_lr": 0.1, "steps": 2}
CONV4 = {"name": "conv4", "width": 8}


def make_learner(model: dict[str, Any], algorithm: dict[str, Any], inputs=(1, 28, 28), dtype=torch.float64) -> Learner:
    """An untrained learner of 5 classes with the settings of the sections, in float64 where laws are tested."""
    sections, problems = validate_sections({"model": model, "algorithm": algorithm}, ("model", "algorithm"))
    assert not problems
    form = CHARACTER_FORM if inputs == (1, 28, 28) else None
    blueprint = Blueprint(sections["model"], sections["algorithm"], inputs, 5, "classes", form)
    network = blueprint.build(5)
    params = network.model.init(torch.Generator().manual_seed(0))
    theta = network.algorithm.init(map_leaves(lambda leaf: leaf.to(dtype), params))
    metadata = {
        "kind": "learner",
        "name": "untrained",
        "config": sections,
        "inputs": list(inputs),
        "outputs": 5,
        "form": form._asdict() if form else None,
        "targets": "classes",
        "steps": 2,
    }
    return Learner(metadata, blueprint, theta)


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
