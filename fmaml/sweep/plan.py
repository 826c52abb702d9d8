"""Plan the runs of one command: every combination of seeds and values, each with a complete config and a name.

``algorithm.inner_lr=0.1,0.4`` has two values. Some values are lists, and text may contain commas. So a comma outside
brackets and quotes separates values, unless the whole text is already a valid value, or no part is one.
"""

import copy
import itertools
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..config.config_diff import setting_text
from ..config.load import complete, parse_override, read_experiment
from ..config.registry import TABLE
from ..config.settings import Config
from ..config.validate import named_settings, validate_config
from ..errors import Error, Notify
from .state import SweepRun

MOST_RUNS = 100
LONGEST_VALUE = 40  # characters of a value in a folder's name
LONGEST_NAME = 180  # a file's name may have 255 bytes
SEED = "seed"
OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


def plan(
    experiment: str, overrides: Sequence[str], notify: Notify, *, seeds: Sequence[int] = (), repeat: int | None = None
) -> list[SweepRun]:
    """The runs of a command, starting with all runs of the first seed.

    ``repeat`` is the number of seeds, starting at the config's own. ``notify`` receives each note of
    `fmaml.config.load.load_config` once. Raises Error with the problems of all runs.
    """
    tree, path = read_experiment(experiment, notify)
    texts = dict(map(values_of, overrides))  # the last override of a key counts
    varied = {key for key, values in texts.items() if len(values) > 1}
    if seeds or repeat:
        texts[SEED] = texts_of_seeds(seeds, repeat, texts.get(SEED, []), tree)
        varied.add(SEED)
    texts = dict(sorted(texts.items(), key=lambda item: item[0] != SEED))
    check_lists({key: values for key, values in texts.items() if key in varied})
    choices = [dict(zip(texts, values, strict=True)) for values in itertools.product(*texts.values())]
    configs = configs_of(tree, path, choices, notify)
    settings = [{key: read_value(key, text) for key, text in choice.items() if key in varied} for choice in choices]
    return [SweepRun(*run) for run in zip(folder_names(settings), settings, configs, strict=True)]


def values_of(override: str) -> tuple[str, list[str]]:
    """The dotted key of an override, and the text of each of its values; Error for a wrong list of values."""
    key, equals, text = override.partition("=")
    key, parts = key.strip(), parts_of(text)
    if not equals or not key:
        parse_override(override)  # raises Error
    if len(parts) == 1 or is_value(key, text) or not any(is_value(key, part) for part in parts):
        return key, [text]
    shown = f"command line: {key} = {text}"
    if "" in parts:
        raise Error(f"{shown}: a comma without a value; write values separated by commas, such as 1,2")
    if any(re.fullmatch(r"0[0-9]+", part) for part in parts[1:]):
        whole = "".join(parts)
        raise Error(f"{shown}: commas separate the values of several runs; write {whole} for one number")
    return key, parts


def parts_of(text: str) -> list[str]:
    """The parts of ``text`` between commas outside brackets, braces and quotes, by YAML's rules.

    >>> parts_of("[3,8], 5")
    ['[3,8]', '5']
    """
    starts, depth = [0], 0
    try:
        for token in yaml.scan(f"[{text}]", yaml.SafeLoader):
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if isinstance(token, yaml.FlowEntryToken) and depth == 1:
                starts.append(token.end_mark.index - 1)  # minus the bracket that was put before the text
    except yaml.YAMLError:
        return [text.strip()]
    return [text[start : end - 1].strip() for start, end in itertools.pairwise([*starts, len(text) + 1])]


def is_value(key: str, text: str) -> bool:
    """Whether ``text`` is a valid value of the setting, for any name of its section."""
    try:
        value = read_value(key, text)
    except Error:
        return False
    section, _, name = key.partition(".")
    names = TABLE[section] if section in TABLE and name not in ("", "name") else [None]
    if None not in names and not any(name in named_settings(section, chosen) for chosen in names):
        return not isinstance(value, str) or text[0] in "\"'"  # maybe a setting of outside code
    trees = [{section: {"name": chosen, name: value} if name else value} for chosen in names]
    return any(key not in {problem.key for problem in validate_config(tree)[1]} for tree in trees)


def read_value(key: str, text: str) -> Any:
    """The value of ``text`` for a setting; Error if it is not YAML."""
    return parse_override(f"{key}={text}")[1]


def texts_of_seeds(seeds: Sequence[int], repeat: int | None, given: list[str], tree: Config) -> list[str]:
    """The seeds of --seeds or --repeat, as texts; ``given`` are the seeds of an override."""
    if len(given) > 1 or (given and seeds):
        option = "--seeds" if seeds else "--repeat"
        raise Error(f"{option}: given together with seed={','.join(given)}; leave out one of them")
    first = read_value(SEED, given[0]) if given else tree.get(SEED, 0)
    if type(first) is not int:
        return [str(first)]  # the check of the config refuses it
    return [str(seed) for seed in seeds or range(first, first + (repeat or 1))]


def check_lists(lists: dict[str, list[str]]) -> None:
    """Raise Error for a repeated value, and for more than `MOST_RUNS` runs."""
    for key, texts in lists.items():
        values = [json.dumps(read_value(key, text)) for text in texts]
        repeated = [text for text, value in zip(texts, values, strict=True) if values.count(value) > 1]
        if repeated:
            raise Error(f"{key} = {','.join(texts)}: {repeated[-1]} is given twice; keep one of them")
    runs = math.prod(map(len, lists.values()))
    if runs > MOST_RUNS:
        product = " x ".join(f"{len(texts)} of {key}" for key, texts in lists.items())
        raise Error(
            f"{product}: {runs} runs, but one command starts {MOST_RUNS} at most; leave out values, or give some of "
            f"them to a second command with another --out"
        )


def configs_of(tree: Config, path: Path, choices: list[dict[str, str]], notify: Notify) -> list[Config]:
    """The config of each choice of overrides; Error with the problems of all of them, without repeats."""
    configs: list[Config] = []
    problems: dict[str, None] = {}
    notify_once = cache(notify)
    for choice in choices:
        try:
            overrides = [f"{key}={text}" for key, text in choice.items()]
            configs.append(complete(copy.deepcopy(tree), path, overrides, notify_once))
        except Error as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise Error(*problems)
    return configs


def folder_names(settings: list[dict[str, Any]]) -> list[str]:
    """A readable and unique name for the folder of each run."""
    labels = short_keys(list(settings[0]))
    names: list[str] = []
    for run in settings:
        name = ",".join(f"{labels[key]}={in_a_name(value)}" for key, value in run.items())[:LONGEST_NAME]
        same = sum(other.partition("~")[0].lower() == name.lower() for other in names)  # some disks ignore case
        names.append(f"{name}~{same + 1}" if same else name)
    return names


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, unless another key has the same last part, or it is ``name``."""
    parts = [key.rpartition(".")[2] for key in keys]
    return {
        key: part if parts.count(part) == 1 and part != "name" else key for key, part in zip(keys, parts, strict=True)
    }


def in_a_name(value: Any) -> str:
    """A value as part of a folder's name, valid on any file system."""
    text = re.sub(r"[^A-Za-z0-9._+-]+", "_", setting_text(value)).strip("_")
    return text[:LONGEST_VALUE].rstrip(".") or "_"


def short_text(settings: dict[str, Any]) -> str:
    """Settings as short text, such as ``inner_lr=0.4, ways=[3, 8]``."""
    labels = short_keys(list(settings))
    return ", ".join(f"{labels[key]}={setting_text(value)}" for key, value in settings.items())
