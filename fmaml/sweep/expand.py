"""From one command to its runs: every combination of seeds and listed values, each with a whole config and a name."""

import copy
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config.load import complete, parse_override, read_experiment
from ..config.settings import Config
from ..errors import Notify, UserError
from .values import values_of

MOST_RUNS = 100
LONGEST_VALUE = 40  # characters of a value in a folder's name
LONGEST_NAME = 180  # a file's name may have 255 bytes
SEED = "seed"


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    folder: str  # the name of its folder, such as "seed=1,inner_lr=0.4"
    settings: dict[str, Any]  # those that differ between the runs: dotted key -> value
    config: Config


class Seeds(NamedTuple):
    """What --seeds or --repeat asks for; neither leaves the config's seed."""

    listed: Sequence[int] = ()
    repeat: int | None = None  # how many from the config's seed on


def expand(experiment: str, overrides: Sequence[str], seeds: Seeds, notify: Notify) -> list[PlannedRun]:
    """The runs that a command asks for, those of the first seed first.

    ``notify`` is told once what `fmaml.config.load.load_config` says of several runs alike. UserError names whatever is
    wrong with any of them.
    """
    tree, path = read_experiment(experiment, notify)
    fixed, lists = part_overrides(overrides)
    seed_texts = texts_of_seeds(seeds, tree, fixed, lists)
    if seed_texts:
        fixed.pop(SEED, None)
        lists = {SEED: seed_texts, **lists}
    lists = dict(sorted(lists.items(), key=lambda item: item[0] != SEED))
    check_lists(lists)
    combinations = list(itertools.product(*lists.values()))
    told: dict[str, None] = {}
    configs = validated(tree, path, [fixed | dict(zip(lists, texts, strict=True)) for texts in combinations], told)
    for line in told:
        notify(line)
    settings = [
        {key: parse_override(f"{key}={text}")[1] for key, text in zip(lists, texts, strict=True)}
        for texts in combinations
    ]
    return [PlannedRun(*run) for run in zip(folder_names(settings), settings, configs, strict=True)]


def part_overrides(overrides: Sequence[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Key -> text of the overrides with one value, and key -> texts of those that list several; the last one counts."""
    fixed: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    for override in overrides:
        key = parse_key(override)
        fixed.pop(key, None)
        lists.pop(key, None)
        texts = values_of(override)
        if texts is None:
            fixed[key] = override.partition("=")[2]
        else:
            lists[key] = texts
    return fixed, lists


def parse_key(override: str) -> str:
    """The dotted key of an override; UserError if it is none."""
    key, equals, _ = override.partition("=")
    return key.strip() if equals and key.strip() else parse_override(override)[0]


def texts_of_seeds(seeds: Seeds, tree: Config, fixed: dict[str, str], lists: dict[str, list[str]]) -> list[str]:
    """The seeds of --seeds or --repeat, as texts; none if neither is given."""
    if not seeds.listed and seeds.repeat is None:
        return []
    option = "--seeds" if seeds.listed else "--repeat"
    if SEED in lists or (SEED in fixed and seeds.listed):
        given = ",".join(lists.get(SEED, [fixed.get(SEED, "")]))
        raise UserError(f"{option}: given beside seed={given}; leave out one of them")
    if seeds.listed:
        return [str(seed) for seed in seeds.listed]
    first = parse_override(f"{SEED}={fixed[SEED]}")[1] if SEED in fixed else tree.get(SEED, 0)
    if isinstance(first, bool) or not isinstance(first, int):
        return [str(first)]  # which the config's own check refuses
    return [str(first + number) for number in range(seeds.repeat or 1)]


def check_lists(lists: dict[str, list[str]]) -> None:
    """UserError for a value that is given twice, and for more runs than anybody means."""
    for key, texts in lists.items():
        values = [json.dumps(parse_override(f"{key}={text}")[1]) for text in texts]
        for number, value in enumerate(values):
            if value in values[:number]:
                raise UserError(f"{key} = {','.join(texts)}: {texts[number]} is given twice; keep one of them")
    runs = 1
    for texts in lists.values():
        runs *= len(texts)
    if runs > MOST_RUNS:
        product = " x ".join(f"{len(texts)} of {key}" for key, texts in lists.items())
        raise UserError(
            f"{product}: {runs} runs, and one command starts {MOST_RUNS} at most; leave out values, or give some of "
            f"them to a second command with another --out"
        )


def validated(tree: Config, path: Path, choices: list[dict[str, str]], told: dict[str, None]) -> list[Config]:
    """The config of each choice of overrides; UserError with every line that is said of any of them, once."""
    configs: list[Config] = []
    problems: dict[str, None] = {}
    for choice in choices:
        texts = [f"{key}={text}" for key, text in choice.items()]
        try:
            configs.append(complete(copy.deepcopy(tree), path, texts, lambda line: told.update({line: None})))
        except UserError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise UserError("\n".join(problems))
    return configs


def folder_names(settings: list[dict[str, Any]]) -> list[str]:
    """A readable name for the folder of each run, all different."""
    labels = short_keys(list(settings[0]))
    names: list[str] = []
    for run in settings:
        name = ",".join(f"{labels[key]}={in_a_name(value)}" for key, value in run.items())[:LONGEST_NAME]
        same = sum(other.partition("~")[0].lower() == name.lower() for other in names)  # some disks know no case
        names.append(f"{name}~{same + 1}" if same else name)
    return names


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, where that tells it apart and says enough: ``name`` alone says nothing."""
    last = {key: key.rpartition(".")[2] for key in keys}
    parts = list(last.values())
    return {key: key if part == "name" or parts.count(part) > 1 else part for key, part in last.items()}


def in_a_name(value: Any) -> str:
    """A value as a part of a folder's name, on any file system."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("_")[:LONGEST_VALUE].rstrip(".") or "_"


def short_text(settings: dict[str, Any]) -> str:
    """Settings as a person writes them, such as ``inner_lr=0.4, ways=[3, 8]``."""
    labels = short_keys(list(settings))
    return ", ".join(
        f"{labels[key]}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    )
