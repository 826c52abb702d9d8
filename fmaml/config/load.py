"""Read a YAML file and overrides into a complete config, or raise one error that lists every problem.

The keys of a section are the parameters of the function that its `name` picks from the table in `registry.py`.
"""

import json
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from ..config import packaged
from ..errors import Error, Notify
from ..files.regular import UnsuitableFile, check_regular
from .cross_checks import RULES
from .registry import TABLE, own_code
from .settings import Config
from .signature import REQUIRED
from .strict_yaml import parse_yaml
from .validate import SECTIONS, Problem, section_settings, validate_config

MAX_FILE_BYTES = 64 * 1024
STANDARD_INPUT = Path("/dev/stdin")  # its name in messages; Windows has no such file


def load_config(experiment: str, overrides: Iterable[str] = (), notify: Notify = lambda line: None) -> Config:
    """The config of ``experiment`` (a path, a packaged name, or - for standard input) with the overrides applied.

    Every default is filled in. ``notify`` receives notes on unexpected changes, such as a dropped key.
    Raises Error, with one line for each problem, if the file or an override is wrong.
    """
    tree, path = read_experiment(experiment, notify)
    return complete(tree, path, overrides, notify)


def read_experiment(experiment: str, notify: Notify) -> tuple[Config, Path]:
    """The experiment's name and the sections of its file, not yet validated; and the file's path."""
    path = STANDARD_INPUT if experiment == "-" else packaged.find_experiment(experiment, notify)
    tree = read_config(path)
    if "name" not in tree:
        tree = {"name": name_from_file(path, notify), **tree}
    return tree, path


def complete(tree: Config, path: Path, overrides: Iterable[str], notify: Notify) -> Config:
    """Apply the overrides to ``tree``, in place, and return the config with every default filled in.

    ``path`` is the file, for messages. Raises Error, with one line for each problem.
    """
    override_values = dict(map(parse_override, overrides))
    apply_overrides(tree, override_values, notify)
    config, problems = validate_config(tree)
    if not problems:
        problems = check_rules(config)
    if problems:
        raise Error(*(describe_problem(problem, path, override_values) for problem in problems))
    return config


def check_rules(config: Config) -> list[Problem]:
    """The violations of the rules in `cross_checks`. Each value of the config must be valid."""
    violations: list[tuple[str, str]] = []
    for rule in RULES:
        try:
            violations += rule(config)
        except (KeyError, TypeError, IndexError):  # outside code may use a setting's name with another meaning
            if not any(own_code(config, section) for section in TABLE):
                raise
    return [Problem(key, message, setting_value(config, key)) for key, message in violations]


def name_from_file(path: Path, notify: Notify) -> str:
    """The file's name without its extension, changed to be valid as a folder's name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "experiment"
    if name != path.stem:
        notify(f"name = {name}, after the file's name")
    return name


def read_config(path: Path) -> Config:
    """The sections of the file, not yet validated; Error if the file is not YAML with sections."""
    try:
        if not path.is_relative_to("/dev") and path is not STANDARD_INPUT:  # the shell's <(...) is a pipe in /dev/fd
            check_regular(path)
        with open(0, "rb", closefd=False) if path is STANDARD_INPUT else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except UnsuitableFile as error:
        raise Error(f"{path}: {error}; give a YAML file, or - to read standard input") from None
    except OSError as error:
        raise Error(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Error(f"{path}: not a text file (byte {error.start} is not UTF-8); give a YAML file") from None
    if len(data) > MAX_FILE_BYTES:
        raise Error(f"{path}: larger than {MAX_FILE_BYTES // 1024} KiB; an experiment is a short YAML file")
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise Error(f"{path}: not an experiment; it needs the sections {', '.join(SECTIONS)}")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    """The dotted key and the value of an override such as ``data.ways=20``; Error if it is not one."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise Error(f"command line: {text}: not an override; write section.key=value, such as data.ways=20")
    return key.strip(), parse_yaml(value, f"command line: {key.strip()}")


def apply_overrides(tree: Config, override_values: dict[str, Any], notify: Notify) -> None:
    """Put the overrides into ``tree``, in place.

    If an override changes a section's name, the keys that only the old name takes are dropped, unless they are
    overrides. Unknown keys stay, and `validate_config` reports them.
    """
    old_settings = {section: section_settings(section, tree.get(section)) or {} for section in TABLE}
    for key, value in override_values.items():
        _set_value(tree, key, value)
    for section, old in old_settings.items():
        new = section_settings(section, tree.get(section))
        if new is None or section in override_values:
            continue
        dropped = [key for key in tree[section] if key in old and key not in new]
        for key in dropped:
            if f"{section}.{key}" not in override_values:
                del tree[section][key]
                notify(f"{section}.{key} of the file is left out: {tree[section]['name']} does not take it")


def _set_value(tree: Config, dotted: str, value: Any) -> None:
    section, dot, key = dotted.partition(".")
    if not dot or section not in SECTIONS:
        tree[dotted] = value
        return
    values = tree.get(section)
    if values is None:
        tree[section] = {key: value}
    elif isinstance(values, dict):
        tree[section] = {**values, key: value}


def setting_value(config: Config, dotted: str) -> Any:
    """The value of a setting such as data.ways."""
    section, _, key = dotted.partition(".")
    return config[section][key]


def describe_problem(problem: Problem, path: Path, override_keys: Container[str]) -> str:
    """``file: key = value: problem; cure``."""
    section = problem.key.partition(".")[0]
    overridden = problem.key in override_keys or section in override_keys
    where = "command line" if overridden else path
    value = "" if problem.value is REQUIRED else f" = {shorten(problem.value)}"
    return f"{where}: {problem.key}{value}: {problem.message}"


def shorten(value: Any, width: int = 60) -> str:
    """The value as JSON, cut to ``width`` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 3] + "..."
