"""The shipped experiments in their smallest form: other data where theirs are absent, what they need beside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from spoken import write_recordings

from fmaml.config.load import load_config

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
REAL = ("cifar_fs", "lora", "mini_imagenet", "photographs")  # whose real data nothing stands in for


def form(setting: Any) -> Any:
    """A setting, or a section of them, without its numbers."""
    if isinstance(setting, dict):
        return {key: form(value) for key, value in setting.items()}
    if isinstance(setting, list):
        return [form(value) for value in setting]
    return setting if isinstance(setting, str | bool) or setting is None else 0


def first_of_each_form(paths: list[Path]) -> list[Path]:
    """The experiments without those that differ from one of them in numbers alone, apart from how long they train."""
    found: dict[str, Path] = {}
    for path in paths:
        config = load_config(str(path))
        parts = [form(config[section]) for section in ("data", "model", "algorithm", "optimizer")]
        found.setdefault(json.dumps(parts, sort_keys=True), path)
    return list(found.values())


TOP = Path(__file__).parents[1]
PATHS = [*sorted((TOP / "experiments").rglob("*.yaml")), *sorted((TOP / "examples").rglob("*.yaml"))]
FORMS = first_of_each_form(PATHS)
SOURCES = {load_config(str(path))["data"]["name"]: path for path in reversed(FORMS)}  # the first of each
MARKS = {path: [pytest.mark.pictures] if path in SOURCES.values() else [] for path in FORMS}
EACH = [pytest.param(path, marks=MARKS.get(path, pytest.mark.slow)) for path in PATHS]


def smallest(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[str]:
    """Overrides with which the experiment takes seconds; what it reads is written to the ``folder``.

    Skips the test where that is real data which is not there.
    """
    if path.stem.startswith(REAL):
        request.getfixturevalue("real_data")
    small = [*SMALL, "train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2"]
    small += ["eval.tasks=2", "eval.steps=1"]
    algorithm = load_config(str(path))["algorithm"]
    small += ["algorithm.steps=2"] if algorithm.get("steps", 0) > 2 else []
    small += ["algorithm.chunks=3", "data.shots=3"] if "chunks" in algorithm else []
    if path.parent.stem == "control":
        small += ["data.episodes=2", "data.horizon=5"]
    elif path.stem == "ratings":
        small += ["data.train_queries=5"]
    elif path.stem not in ("sinusoid", "sinusoid_5shot", "fields"):
        small += ["data.queries=1"]  # each alone beside the support set, they would take longest
    if "mini_imagenet" in path.stem:
        small += ["train.meta_batch=1", "model.width=8"]  # large images are trained on one task after the other
    small += ["train.start=null"] if path.stem == "omniglot_20w1s_proto_maml" else []
    if algorithm["name"] == "pretrain":
        small += ["data.train_batch=8", "model.width=8", "train.start=null"]
    small += CHARACTERS if "omniglot" in path.stem or path.parent.stem == "algorithms" else []
    small += ["data.name=markov"] if path.stem == "languages" else []
    small += ["data={name: markov, shots: 3, queries: 1, length: 16}"] if path.stem == "stream" else []
    if path.stem in ("table", "signals"):
        monkeypatch.chdir(request.getfixturevalue("public_tables"))
    if path.stem == "photos":
        small += [
            f"data.root={write_photographs(folder / 'photos')}",
            "model.width=4",
            "train.start=null",
            "train.baseline=false",
        ]
    if path.parent.stem == "audio":
        small += [f"data.root={write_recordings(folder / 'recordings')}", "model.width=4"]
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
