"""Check a config against the signatures of the functions it names, and fill in the defaults."""

import difflib
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, NamedTuple

from annotated_types import Lt, Predicate
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from ..errors import Error
from ..setting_types import FreeOnResume, Mark, Natural
from .registry import SETTINGS, TABLE, find_entry, known_names
from .settings import Config
from .signature import REQUIRED, Setting, dataclass_settings, function_settings
from .source_text import find_function
from .value_descriptions import TypeForm, ValueDescription, describe_values

LEAST_SIMILARITY = 0.7  # similarity of a key that is suggested
SECTIONS = [*TABLE, *SETTINGS]
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
FOLDER_NAME = Annotated[
    str,
    Predicate(lambda name: bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name))),
    ValueDescription("a folder's name: letters, digits, dots, dashes and underscores, 64 at most"),
]
TOP_LEVEL = {
    "name": Setting(FOLDER_NAME, marks=frozenset({FreeOnResume})),
    "seed": Setting(Annotated[Natural, Lt(2**32)], 0),
}


class Problem(NamedTuple):
    """One problem of a config."""

    key: str  # dotted
    message: str  # "problem; cure"
    value: Any = REQUIRED  # the value given; REQUIRED if there is none


def section_settings(section: str, values: Any) -> dict[str, Setting] | None:
    """The settings of a section with these values; None if its `name` is missing or wrong."""
    if section in SETTINGS:
        return dataclass_settings(SETTINGS[section])
    name = values.get("name") if isinstance(values, dict) else None
    try:
        return named_settings(section, name)
    except Error:
        return None


def named_settings(section: str, name: Any) -> dict[str, Setting]:
    """The settings of the function that a name picks; Error if there is no such function."""
    return function_settings(find_function(find_entry(section, name).target))


def marked_settings(config: Config, mark: Mark) -> dict[str, Any]:
    """The settings of a valid config that carry the mark: dotted key -> value."""
    found = {key: config[key] for key, setting in TOP_LEVEL.items() if mark in setting.marks}
    for section in SECTIONS:
        for key, setting in (section_settings(section, config[section]) or {}).items():
            if mark in setting.marks:
                found[f"{section}.{key}"] = config[section][key]
    return found


def validate_config(tree: Config) -> tuple[Config, list[Problem]]:
    """The config with every default filled in, its sections in the table's order; and every problem found.

    If there are problems, the config is incomplete.
    """
    top_level = {key: value for key, value in tree.items() if key not in SECTIONS}
    config, problems = validate_values("", top_level, TOP_LEVEL, all_dotted_keys(tree))
    sections, wrong = validate_sections(tree, SECTIONS)
    return config | sections, problems + wrong


def validate_sections(tree: Config, sections: Iterable[str]) -> tuple[Config, list[Problem]]:
    """Validate only these sections; see `validate_config`."""
    all_keys = all_dotted_keys(tree)
    config: Config = {}
    problems: list[Problem] = []
    for section in sections:
        values = {} if tree.get(section) is None else tree[section]
        config[section], wrong = _validate_section(section, values, all_keys)
        problems += wrong
    return config, problems


def all_dotted_keys(tree: Config) -> list[str]:
    """Every key that the config's sections take, such as data.ways, for suggestions in messages."""
    settings = {section: section_settings(section, tree.get(section)) or {} for section in SECTIONS}
    return [f"{section}.name" for section in TABLE] + [
        f"{section}.{key}" for section in SECTIONS for key in settings[section]
    ]


def _validate_section(section: str, values: Any, all_keys: list[str]) -> tuple[Config, list[Problem]]:
    if not isinstance(values, dict):
        return {}, [Problem(section, _not_a_section(section, values), values)]
    if section in SETTINGS:
        return validate_values(f"{section}.", values, dataclass_settings(SETTINGS[section]), all_keys)
    if "name" not in values:
        return {}, [Problem(f"{section}.name", f"missing; give one of {', '.join(known_names(section))}")]
    name, others = values["name"], {key: value for key, value in values.items() if key != "name"}
    try:
        settings = named_settings(section, name)
    except Error as error:
        return {}, [Problem(f"{section}.name", str(error), name)]
    valid, problems = validate_values(f"{section}.", others, settings, all_keys)
    return {"name": name, **valid}, problems


def validate_values(
    prefix: str, values: dict[str, Any], settings: dict[str, Setting], all_keys: list[str]
) -> tuple[Config, list[Problem]]:
    """Check one section's values against its settings, and fill in the defaults.

    ``prefix`` comes before its keys, such as "data."; ``all_keys`` are all dotted keys, for suggestions.
    """
    valid: Config = {}
    problems: list[Problem] = []
    for key, value in values.items():
        if key not in settings:
            problems.append(Problem(prefix + key, _unknown_key(prefix, key, settings, all_keys), value))
    for key, setting in settings.items():
        value = values.get(key, setting.default)
        if value is REQUIRED:
            problems.append(Problem(prefix + key, f"missing; give {describe_values(setting.type)}"))
            continue
        try:
            valid[key] = validate_value(setting.type, value)
        except ValidationError:
            problems.append(Problem(prefix + key, f"must be {describe_values(setting.type)}", value))
        except (PydanticUserError, TypeError):
            problems.append(Problem(prefix + key, "the limits of its annotation do not fit its type; correct it"))
    return valid, problems


def validate_value(kind: TypeForm, value: Any) -> Any:
    """``value`` as plain data of the type ``kind``; pydantic's ValidationError if it is of another type.

    The value is validated as JSON, so that a list may stand for a tuple.
    """
    adapter = type_adapter(kind)
    return adapter.dump_python(adapter.validate_json(json.dumps(value)), mode="json")


@cache
def type_adapter(kind: TypeForm) -> TypeAdapter[Any]:
    """pydantic's validator of a type, cached because building one is slow."""
    return TypeAdapter(kind, config=STRICT)


def _unknown_key(prefix: str, key: str, settings: dict[str, Setting], all_keys: list[str]) -> str:
    section = prefix.rstrip(".")
    for name, entry in TABLE.get(section, {}).items():
        if key in function_settings(find_function(entry.target)):
            return f"unknown key for this {section}.name; {name} takes it"
    closest = closest_key(prefix, key, settings, all_keys)
    if closest:
        return f"unknown key; did you mean {closest}?"
    return f"unknown key; {section or 'the top level'} takes {', '.join(settings) or 'no other keys'}"


def closest_key(prefix: str, key: str, settings: Iterable[str], all_keys: list[str]) -> str | None:
    """The dotted key that was probably meant.

    Try a similar key of this section, then the same key in another one. A key outside every section may also be similar
    to one of any section.
    """
    elsewhere = {dotted.partition(".")[2]: dotted for dotted in reversed(all_keys)}
    here = {name: prefix + name for name in settings}
    if not prefix:
        here |= {section: section for section in SECTIONS}
    last_part = key.rpartition(".")[2]
    far = 1.0 if prefix else 0.75
    for word, candidates, cutoff in ((key, here, LEAST_SIMILARITY), (last_part, elsewhere, far)):
        for match in difflib.get_close_matches(word, candidates, 1, cutoff):
            return candidates[match]
    return None


def _not_a_section(section: str, value: Any) -> str:
    if isinstance(value, str) and value in TABLE.get(section, {}):
        return f"must be a section with keys of its own; did you mean {section}.name = {value}?"
    return "must be a section: lines of key: value below it"
