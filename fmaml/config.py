"""From a YAML file and overrides to a complete config, or to one message that names everything wrong with it.

The keys of a section are the parameters of the function that its `name` picks from the table in `build.py`.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Lt, Predicate
from pydantic import ConfigDict, TypeAdapter, ValidationError

from . import shipped, strict_yaml
from .build import NAMELESS, TABLE
from .errors import UserError
from .ranges import Natural
from .rules import RULES
from .schema import REQUIRED, InWords, Setting, definition, settings, words

Config = dict[str, Any]  # plain data: what `dump` writes, `load` reads back as it was
SECTIONS = [*TABLE, *NAMELESS]
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
LARGEST = 64 * 1024  # bytes of a file
FOLDER_NAME = Annotated[
    str,
    Predicate(lambda name: bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name))),
    InWords("a folder's name: letters, digits, dots, dashes and underscores, 64 at most"),
]
TOP = {"name": Setting(FOLDER_NAME), "seed": Setting(Annotated[Natural, Lt(2**32)], 0)}


class Problem(NamedTuple):
    key: str  # dotted
    what: str  # what is wrong; what would be right
    value: Any = REQUIRED  # REQUIRED: there is none


def load(
    experiment: str, overrides: Iterable[str] = (), note: Callable[[str], None] = lambda line: None
) -> Config:
    """The config that ``experiment`` (a path, a shipped name, - for standard input) and the overrides give.

    Every default is filled in. ``note`` is told what the user may not expect.
    """
    path = Path("/dev/stdin") if experiment == "-" else shipped.find(experiment, note)
    tree = {"name": path.stem, **read(path)}
    typed = dict(map(parse_override, overrides))
    merge(tree, typed, note)
    config, problems = check(tree)
    problems = problems or [
        Problem(*found, value=at(config, found[0])) for rule in RULES for found in rule(config)
    ]
    if problems:
        raise UserError("\n".join(tell(problem, path, typed) for problem in problems))
    return config


dump = strict_yaml.dump


def read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not a text file (byte {error.start} is not UTF-8); give a YAML file"
        ) from None
    if len(data) > LARGEST:
        raise UserError(f"{path}: larger than {LARGEST // 1024} KiB; an experiment is a short YAML file")
    tree = strict_yaml.parse(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path}: not an experiment; it needs the sections {', '.join(SECTIONS)}")
    return tree


def parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(
            f"command line: {text}: not an override; write section.key=value, such as data.ways=20"
        )
    return key.strip(), strict_yaml.parse(value, f"command line: {key.strip()}")


def merge(tree: dict[str, Any], typed: dict[str, Any], note: Callable[[str], None]) -> None:
    """Put the ``typed`` values into ``tree``.

    Where they choose another function for a section, keys of the file are left out that only the old one takes;
    what was typed stays, and so do slips, to be reported.
    """
    before = {section: known_settings(section, tree.get(section)) or {} for section in TABLE}
    for key, value in typed.items():
        section, dot, rest = key.partition(".")
        if not dot:
            tree[section] = value
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


def known_settings(section: str, given: Any) -> dict[str, Setting] | None:
    """The settings of a section; None while its `name` is missing or unknown."""
    if section in NAMELESS:
        return settings(definition(NAMELESS[section]), keyword_only=True)
    name = given.get("name") if isinstance(given, dict) else None
    target = TABLE[section].get(name) if isinstance(name, str) else None
    return settings(definition(target)) if target else None


def check(tree: dict[str, Any]) -> tuple[Config, list[Problem]]:
    """The tree in the order of the table, with every default filled in, and what is wrong with it."""
    known = {section: known_settings(section, tree.get(section)) for section in SECTIONS}
    all_keys = [f"{s}.{key}" for s in SECTIONS for key in ["name"] * (s in TABLE) + list(known[s] or {})]
    config, problems = check_values("", {k: v for k, v in tree.items() if k not in SECTIONS}, TOP, all_keys)
    for section in SECTIONS:
        given = {} if tree.get(section) is None else tree[section]
        if not isinstance(given, dict):
            problems.append(Problem(section, _not_a_section(section, given), given))
        elif (takes := known[section]) is None:
            problems.append(_unknown_name(section, given))
        else:
            named = {"name": given["name"]} if section in TABLE else {}
            rest = {key: value for key, value in given.items() if key not in named}
            config[section], wrong = check_values(f"{section}.", rest, takes, all_keys)
            config[section] = named | config[section]
            problems += wrong
    return config, problems


def check_values(
    prefix: str, given: dict[str, Any], takes: dict[str, Setting], all_keys: list[str]
) -> tuple[Config, list[Problem]]:
    """One section's values against the settings it takes; ``prefix`` is "data." or the like."""
    good, problems = {}, []
    for key, value in given.items():
        if key not in takes:
            problems.append(Problem(prefix + key, _unknown_key(prefix, key, takes, all_keys), value))
    for key, setting in takes.items():
        value = given.get(key, setting.default)
        if value is REQUIRED:
            problems.append(Problem(prefix + key, f"missing; give {words(setting.type)}"))
            continue
        try:
            good[key] = valid(setting.type, value)
        except ValidationError:
            problems.append(Problem(prefix + key, f"must be {words(setting.type)}", value))
    return good, problems


def valid(kind: Any, value: Any) -> Any:
    """``value`` as plain data of the type ``kind``; by way of JSON, in which a list may stand for a tuple."""
    adapter = TypeAdapter(kind, config=STRICT)
    return adapter.dump_python(adapter.validate_json(json.dumps(value)), mode="json")


def _unknown_key(prefix: str, key: str, takes: dict[str, Setting], all_keys: list[str]) -> str:
    near = nearest(prefix, key, takes, all_keys)
    if near:
        return f"unknown key; did you mean {near}?"
    return f"unknown key; {prefix.rstrip('.') or 'the top level'} takes {', '.join(takes) or 'no other keys'}"


def nearest(prefix: str, key: str, takes: Iterable[str], all_keys: list[str]) -> str | None:
    """The dotted key that was probably meant: this word elsewhere, a slip here, or a slip elsewhere."""
    elsewhere = {dotted.partition(".")[2]: dotted for dotted in reversed(all_keys)}
    here = {name: prefix + name for name in takes} | (
        {} if prefix else {section: section for section in SECTIONS}
    )
    if key in elsewhere:
        return elsewhere[key]
    for candidates, likeness in ((here, 0.6), (elsewhere, 0.75)):
        for word in difflib.get_close_matches(key, candidates, 1, likeness):
            return candidates[word]
    return None


def _not_a_section(section: str, value: Any) -> str:
    if isinstance(value, str) and value in TABLE.get(section, {}):
        return f"must be a section with keys of its own; did you mean {section}.name = {value}?"
    return "must be a section: lines of key: value below it"


def _unknown_name(section: str, given: dict[str, Any]) -> Problem:
    choices = f"one of {', '.join(TABLE[section])}"
    if "name" not in given:
        return Problem(f"{section}.name", f"missing; give {choices}")
    return Problem(f"{section}.name", f"must be {choices}", given["name"])


def at(config: Config, key: str) -> Any:
    section, _, rest = key.partition(".")
    return config[section][rest]


def tell(problem: Problem, path: Path, typed: Iterable[str]) -> str:
    """``file: key = value: what is wrong; what would be right``."""
    by_hand = any(
        f"{a}.".startswith(f"{b}.") for key in typed for a, b in [(key, problem.key), (problem.key, key)]
    )
    where = "command line" if by_hand else path
    value = "" if problem.value is REQUIRED else f" = {shorten(problem.value)}"
    return f"{where}: {problem.key}{value}: {problem.what}"


def shorten(value: Any, width: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 3] + "..."
