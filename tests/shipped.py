"""The shipped experiments in their smallest form: other data where theirs are absent, what they need beside."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHARACTERS = ["data.name=glyphs", "model.width=8"]
SMALL = [
    "train.meta_steps=6",
    "train.meta_batch=4",
    "train.validate_every=3",
    "train.validate_tasks=8",
    "train.log_every=2",
    "eval.tasks=12",
    "eval.steps=2",
]
REAL = ("cifar_fs", "lora", "mini_imagenet")  # whose real data nothing stands in for
PATHS = sorted((Path(__file__).parents[1] / "experiments").rglob("*.yaml"))


def smallest(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """Overrides with which the experiment takes seconds; what it reads is written to the ``folder``.

    Skips the test where that is real data which is not there.
    """
    if path.stem.startswith(REAL):
        request.getfixturevalue("real_data")
    small = [*SMALL, "train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2"]
    small += ["eval.tasks=2", "eval.steps=1"]
    if path.stem in ("navigation", "cheetah"):
        small += ["data.episodes=2", "data.horizon=5"]
    elif "sinusoid" not in path.stem:
        small += ["data.queries=1"]  # each alone beside the support set, they would take longest
    if "mini_imagenet" in path.stem:
        small += ["train.meta_batch=1"]  # large images are trained on one task after the other
    small += CHARACTERS if "omniglot" in path.stem or path.parent.stem == "algorithms" else []
    small += ["data.name=markov"] if path.stem == "languages" else []
    if path.stem in ("table", "signals"):
        monkeypatch.chdir(request.getfixturevalue("public_tables"))
    if path.stem == "photos":
        small += [f"data.root={write_photographs(folder / 'photos')}", "data.train_ways=5", "data.shots=1"]
    if path.stem == "lora":
        small += [f"model.base={request.getfixturevalue('gpt2')}", "data.length=20"]
    return small


def write_photographs(folder: Path) -> Path:
    """A folder of 21 classes of three photographs."""
    rng = np.random.default_rng(0)
    for i in range(21):
        (folder / f"c{i}").mkdir(parents=True)
        for j in range(3):
            pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{i}" / f"{j}.jpg")
    return folder
