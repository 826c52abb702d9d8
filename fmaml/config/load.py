"""From a YAML file and overrides to a complete config, or to one message that names everything wrong with it.

The keys of a section are the parameters of the function that its `name` picks from the table in `registry.py`.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import packaged
from .cross_checks import RULES
from .registry import TABLE
from .signature import REQUIRED
from .strict_yaml import parse_yaml
from .validate import SECTIONS, Config, Problem, check, known_settings

MOST_BYTES = 64 * 1024  # of a file


def load(experiment: str, overrides: Iterable[str] = (), note: Callable[[str], None] = lambda line: None) -> Config:
    """The config that ``experiment`` (a path, a shipped name, - for standard input) and the overrides give.

    Every default is filled in. ``note`` is told what the user may not expect.
    """
    path = Path("/dev/stdin") if experiment == "-" else packaged.find_experiment(experiment, note)
    tree = read_config(path)
    if "name" not in tree:
        tree = {"name": named_after(path, note), **tree}
    typed = dict(map(parse_override, overrides))
    merge(tree, typed, note)
    config, problems = check(tree)
    if not problems:
        broken = (found for rule in RULES for found in rule(config))
        problems = [Problem(key, what, value_at(config, key)) for key, what in broken]
    if problems:
        raise UserError("\n".join(describe_problem(problem, path, typed) for problem in problems))
    return config


def named_after(path: Path, note: Callable[[str], None]) -> str:
    """The file's name without its ending, as the name of a folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "experiment"
    if plain != path.stem:
        note(f"name = {plain}, after the file's name")
    return plain


def read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file (byte {error.start} is not UTF-8); give a YAML file") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path}: larger than {MOST_BYTES // 1024} KiB; an experiment is a short YAML file")
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not an experiment; it needs the sections {', '.join(SECTIONS)}")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"command line: {text}: not an override; write section.key=value, such as data.ways=20")
    return key.strip(), parse_yaml(value, f"command line: {key.strip()}")


def merge(tree: dict[str, Any], typed: dict[str, Any], note: Callable[[str], None]) -> None:
    """Put the ``typed`` values into ``tree``.

    Where they choose another function for a section, keys that only the old one takes are left out, unless
    they were typed. Slips stay, to be reported.
    """
    before = {section: known_settings(section, tree.get(section)) or {} for section in TABLE}
    for key, value in typed.items():
        section, dot, rest = key.partition(".")
        if not dot or section not in SECTIONS:
            tree[key] = value
        elif tree.setdefault(section, {}) is None or isinstance(tree[section], dict):
            tree[section] = {**(tree[section] or {}), rest: value}
    for section, old in before.items():
        new = known_settings(section, tree.get(section))
        if new is None or section in typed:
            continue
        for key in [key for key in tree[section] if key in old and key not in new]:
            if f"{section}.{key}" not in typed:
                del tree[section][key]
                note(f"{section}.{key} of the file is left out: {tree[section]['name']} does not take it")


def value_at(config: Config, key: str) -> Any:
    section, _, rest = key.partition(".")
    return config[section][rest]


def describe_problem(problem: Problem, path: Path, typed: Iterable[str]) -> str:
    """``file: key = value: what is wrong; what would be right``."""
    by_hand = any(f"{problem.key}.".startswith(f"{key}.") for key in typed)
    where = "command line" if by_hand else path
    value = "" if problem.value is REQUIRED else f" = {shorten(problem.value)}"
    return f"{where}: {problem.key}{value}: {problem.what}"


def shorten(value: Any, width: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 3] + "..."
