"""A config against the signatures of the functions it names: defaults filled in, and all that is wrong."""

import difflib
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, NamedTuple

from annotated_types import Lt, Predicate
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..ranges import FreeOnResume, Mark, Natural
from .registry import SETTINGS, TABLE
from .settings import Config
from .signature import REQUIRED, InWords, Setting, definition, fields_of, parameters, words

SECTIONS = [*TABLE, *SETTINGS]
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
FOLDER_NAME = Annotated[
    str,
    Predicate(lambda name: bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name))),
    InWords("a folder's name: letters, digits, dots, dashes and underscores, 64 at most"),
]
TOP = {"name": Setting(FOLDER_NAME, marks=frozenset({FreeOnResume})), "seed": Setting(Annotated[Natural, Lt(2**32)], 0)}


class Problem(NamedTuple):
    key: str  # dotted
    what: str  # what is wrong; what would be right
    value: Any = REQUIRED  # REQUIRED: there is none


def known_settings(section: str, given: Any) -> dict[str, Setting] | None:
    """The settings of a section; None while its `name` is missing or unknown."""
    if section in SETTINGS:
        return fields_of(SETTINGS[section])
    name = given.get("name") if isinstance(given, dict) else None
    entry = TABLE[section].get(name) if isinstance(name, str) else None
    return parameters(definition(entry.target)) if entry else None


def marked(config: Config, mark: Mark) -> dict[str, Any]:
    """The settings of a valid config that carry the mark: dotted key -> value."""
    found = {key: config[key] for key, setting in TOP.items() if mark in setting.marks}
    for section in SECTIONS:
        for key, setting in (known_settings(section, config[section]) or {}).items():
            if mark in setting.marks:
                found[f"{section}.{key}"] = config[section][key]
    return found


def check(tree: dict[str, Any]) -> tuple[Config, list[Problem]]:
    """The tree in the order of the table, with every default filled in, and what is wrong with it."""
    known = {section: known_settings(section, tree.get(section)) for section in SECTIONS}
    all_keys = [f"{section}.name" for section in TABLE]
    all_keys += [f"{section}.{key}" for section in SECTIONS for key in known[section] or {}]
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


@cache
def adapter_of(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=STRICT)


def valid(kind: Any, value: Any) -> Any:
    """``value`` as plain data of the type ``kind``; by way of JSON, in which a list may stand for a tuple."""
    adapter = adapter_of(kind)
    return adapter.dump_python(adapter.validate_json(json.dumps(value)), mode="json")


def _unknown_key(prefix: str, key: str, takes: dict[str, Setting], all_keys: list[str]) -> str:
    section = prefix.rstrip(".")
    for name, entry in TABLE.get(section, {}).items():
        if key in parameters(definition(entry.target)):
            return f"unknown key for this {section}.name; {name} takes it"
    near = nearest(prefix, key, takes, all_keys)
    if near:
        return f"unknown key; did you mean {near}?"
    return f"unknown key; {section or 'the top level'} takes {', '.join(takes) or 'no other keys'}"


def nearest(prefix: str, key: str, takes: Iterable[str], all_keys: list[str]) -> str | None:
    """The dotted key that was probably meant: this word elsewhere, a slip here, or a slip elsewhere."""
    elsewhere = {dotted.partition(".")[2]: dotted for dotted in reversed(all_keys)}
    here = {name: prefix + name for name in takes} | ({} if prefix else {section: section for section in SECTIONS})
    if (word := key.rpartition(".")[2]) in elsewhere:
        return elsewhere[word]
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
