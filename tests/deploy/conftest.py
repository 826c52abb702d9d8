"""What the tests of trained models share."""

import os
from pathlib import Path

import pytest
from learners import draw_characters

from fmaml.cli import main

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before scipy is imported: one of scikit-learn's checks asks for it


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The folder of a run that has learnt something of the built-in characters."""
    out = tmp_path_factory.mktemp("run") / "out"
    settings = ["data.name=glyphs", "model.width=16", "train.meta_steps=60", "train.validate_tasks=8"]
    settings += ["data.train_ways=20", "train.meta_batch=4"]
    small = ["eval.tasks=40", "eval.steps=1", "train.validate_every=30"]
    assert main(["run", "omniglot_prototypes", *settings, *small, "--out", str(out), "--device", "cpu"]) == 0
    return out


@pytest.fixture
def characters(tmp_path) -> Path:
    """``support/`` with a drawing of each of five characters, and ``new/`` with five others of each, as PNG files."""
    return draw_characters(tmp_path, support=1, queries=5)
