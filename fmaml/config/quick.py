"""`fmaml run EXPERIMENT --quick`: fewer meta-steps and fewer tasks, sized for two minutes on two CPU cores."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..errors import Notify
from .cross_checks import upper_bound
from .load import complete, parse_override, read_experiment, setting_value
from .registry import TABLE, find_entry
from .settings import Config

META_STEPS = 1000  # of the experiment omniglot; other images get the number of steps that costs the same
META_BATCH = 4  # more steps of fewer tasks learn more in the same time
OMNIGLOT_COST = META_BATCH * 5 * (10 + 1 + 5) * 28**2 * 64  # by `step_cost`
FEWEST_STEPS = 20
FRACTION = 10  # without images, the meta-steps are divided by this
TASKS = {"train.validate_tasks": 50, "eval.tasks": 100}
VALIDATIONS = 4
INNER_STEP = 10  # a second-order inner step costs as much as this many forward and backward passes of its examples
STAND_IN = "glyphs"  # needs no file


def load_quick(experiment: str, overrides: Sequence[str], notify: Notify) -> tuple[Config, Callable[[], Config] | None]:
    """The config of a short run, and a function that returns the config of its stand-in.

    The stand-in is the same run on built-in characters. It replaces published images that are not on this computer,
    because a short run downloads nothing. Other data has none (None). Settings in ``overrides`` are kept. Raises Error
    as `load_config` does.
    """
    tree, path = read_experiment(experiment, notify)
    config, summary = lowered(tree, path, overrides, notify)
    notify(summary)

    def stand_in() -> Config:
        other, line = lowered(tree, path, [*overrides, f"data.name={STAND_IN}"], _silent)
        if line != summary:
            notify(line)
        return other

    published = find_entry("data", config["data"]["name"]).contents is not None
    return config, stand_in if published and config["data"].get("root") is None else None


def _silent(line: str) -> None: ...


def lowered(tree: Config, path: Path, overrides: Sequence[str], notify: Notify) -> tuple[Config, str]:
    """The config of ``tree`` with the quick settings, and a line that describes them.

    Settings in ``overrides`` are not lowered.
    """
    config = complete(deepcopy(tree), path, overrides, _silent)
    given = {parse_override(override)[0] for override in overrides}
    settings = {key: value for key, value in quick_settings(config).items() if key not in given}
    local = ["data.download=false"] if "download" in config["data"] else []
    lower = [f"{key}={value}" for key, value in settings.items()]
    return complete(deepcopy(tree), path, [*local, *lower, *overrides], notify), quick_line(config, settings)


def quick_settings(config: Config) -> dict[str, Any]:
    """The settings that ``--quick`` lowers in a complete config: dotted key -> lower value."""
    steps = min(config["train"]["meta_steps"], quick_steps(config))
    wanted = {"train.meta_steps": steps, "train.validate_every": max(1, steps // VALIDATIONS), **TASKS}
    wanted |= {"train.meta_batch": META_BATCH} if has_images(config) else {}
    return {key: value for key, value in wanted.items() if setting_value(config, key) > value}


def quick_steps(config: Config) -> int:
    """The number of meta-steps that takes about a minute for images, by their cost; for other data a tenth."""
    if not has_images(config):
        return max(FEWEST_STEPS, config["train"]["meta_steps"] // FRACTION)
    return max(FEWEST_STEPS, min(META_STEPS, round(META_STEPS * OMNIGLOT_COST / step_cost(config))))


def step_cost(config: Config) -> float:
    """A rough cost of one meta-step on images: tasks x examples x numbers in an image x width."""
    data, algorithm = config["data"], config["algorithm"]
    ways = data["train_ways"] or upper_bound(data["ways"])
    shots = data["train_shots"] or upper_bound(data["shots"])
    examples = (INNER_STEP * algorithm.get("steps", 0) + 1) * shots + upper_bound(data["queries"])
    contents = find_entry("data", data["name"]).contents
    numbers = contents.numbers if contents else 3 * data["size"] ** 2
    tasks = min(config["train"]["meta_batch"], META_BATCH)
    return tasks * ways * examples * numbers * config["model"].get("width", 64)


def has_images(config: Config) -> bool:
    """Whether the data is one of fmaml's own sources of images, which share their settings."""
    entry = TABLE["data"].get(config["data"]["name"])
    return entry is not None and "images" in entry.gives


def quick_line(config: Config, settings: dict[str, Any]) -> str:
    """One line: the settings that were lowered, the time, and how to run the experiment in full."""
    names = {"train.meta_steps": "meta-steps", "train.meta_batch": "tasks a meta-step", "eval.tasks": "test tasks"}
    lowered = [
        f"{settings[key]:,} of {setting_value(config, key):,} {name}" for key, name in names.items() if key in settings
    ]
    if not lowered:
        return "--quick: the experiment is already short"
    time = "; about two minutes on two cores" if has_images(config) else ""
    return f"--quick: {', '.join(lowered)}{time}; without --quick it runs in full"
