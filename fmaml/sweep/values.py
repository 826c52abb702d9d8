"""Value lists on the command line: ``algorithm.inner_lr=0.1,0.4`` gives a setting several values, one a run.

A list is a legal value of some settings, and text may hold commas, so the rule is this: the commas outside of brackets,
braces and quotes part the values, unless the whole is a value of the setting already, or none of its parts is one.
"""

import re
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from ..config.load import parse_override
from ..config.registry import TABLE
from ..config.validate import SECTIONS, TOP_LEVEL, section_settings, validate_value
from ..errors import UserError


def parts_of(text: str) -> list[str]:
    """The parts of ``text`` between the commas that stand outside of brackets, braces and quotes.

    As in YAML, a bracket or a quote counts only where a value begins.

    >>> parts_of("[3,8], 5")
    ['[3,8]', '5']
    """
    cuts, depth, quote, before = [-1], 0, "", ","  # `before` is the last character that is not a space
    for place, mark in enumerate(text):
        begins = before in ("[{,:" if depth else ",")
        if quote:
            quote = "" if mark == quote and (quote == "'" or text[place - 1] != "\\") else quote
        elif mark in "'\"" and begins:
            quote = mark
        elif mark in "[{" and (depth or begins):
            depth += 1
        elif mark in "]}" and depth:
            depth -= 1
        elif mark == "," and not depth:
            cuts.append(place)
        before = mark if not mark.isspace() else before
    return [text[start + 1 : end].strip() for start, end in pairwise([*cuts, len(text)])]


def values_of(override: str) -> list[str] | None:
    """The texts of the values that an override lists; None if it gives one value, or is no override.

    UserError if what it lists cannot be meant.
    """
    key, _, text = override.partition("=")
    key, parts = key.strip(), parts_of(text)
    if len(parts) == 1 or _is_value(key, text) or not any(_is_value(key, part) for part in parts):
        return None
    shown = f"command line: {key} = {text}"
    if "" in parts:
        raise UserError(f"{shown}: a comma with no value beside it; write values with commas between, such as 1,2")
    if any(re.fullmatch(r"0[0-9]+", part) for part in parts[1:]):
        whole = "".join(parts)
        raise UserError(f"{shown}: a comma stands between the values of several runs; write {whole} for one number")
    return parts


def _is_value(key: str, text: str) -> bool:
    """Whether ``text`` is a value of the setting, for some choice of its section's name."""
    try:
        value = parse_override(f"{key}={text}")[1]
    except UserError:
        return False
    section, dot, name = key.partition(".")
    if not dot and section not in SECTIONS:
        return _fits([TOP_LEVEL], key, value)
    if not dot:
        return isinstance(value, dict)
    if section not in TABLE:
        return section in SECTIONS and _fits([section_settings(section, {})], name, value)
    if name == "name":
        return isinstance(value, str) and value in TABLE[section]
    return _fits([section_settings(section, {"name": choice}) for choice in TABLE[section]], name, value)


def _fits(choices: list[Any], name: str, value: Any) -> bool:
    for settings in choices:
        if name in settings:
            try:
                validate_value(settings[name].type, value)
                return True
            except ValidationError:
                pass
    return False
