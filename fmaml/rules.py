"""Rules that bind several settings, checked before anything is loaded. Each yields (key, message)."""

from collections.abc import Callable, Iterator
from typing import Any

from .data.characters import CLASSES, DRAWINGS

Broken = Iterator[tuple[str, str]]
CHARACTERS = {"omniglot", "glyphs"}  # sources of CLASSES and DRAWINGS
ROTATIONS = 4
GROUPS = 8  # of `fmaml.nn.models`, which a config check must not import; a test holds the two together


def enough_classes(config: dict[str, Any]) -> Broken:
    data = config["data"]
    if data["name"] not in CHARACTERS:
        return
    classes = {s: n * (ROTATIONS if s in data.get("rotate", ()) else 1) for s, n in CLASSES.items()}
    split = min(classes, key=lambda s: classes[s])
    if data["ways"] > classes[split]:
        yield "data.ways", f"split {split} has {classes[split]} classes; give at most {classes[split]}"


def enough_drawings(config: dict[str, Any]) -> Broken:
    data = config["data"]
    if data["name"] in CHARACTERS and data["shots"] + data["queries"] > DRAWINGS:
        yield (
            "data.shots",
            f"with data.queries = {data['queries']} that is more than the {DRAWINGS} drawings of a class; "
            f"give shots and queries that add up to {DRAWINGS} at most",
        )


def groups_divide_width(config: dict[str, Any]) -> Broken:
    model = config["model"]
    if model.get("norm") == "group" and model["width"] % GROUPS:
        yield "model.width", f'norm = "group" needs a multiple of {GROUPS}; give 8, 16, 32, 64, ...'


def baseline_has_its_settings(config: dict[str, Any]) -> Broken:
    algorithm = config["algorithm"]
    if config["train"]["baseline"] and not {"inner_lr", "steps"} <= algorithm.keys():
        yield "train.baseline", f"it takes inner_lr and steps of the algorithm, and {algorithm['name']} has none"


RULES: list[Callable[[dict[str, Any]], Broken]] = [
    enough_classes,
    enough_drawings,
    groups_divide_width,
    baseline_has_its_settings,
]
