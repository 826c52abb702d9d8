"""What `fmaml ls` prints: the shipped experiments, and the names and settings of every section."""

import difflib
import json
import re
from collections.abc import Iterator
from textwrap import indent

from ..config import packaged
from ..errors import UserError
from .registry import SETTINGS, TABLE, Entry
from .signature import REQUIRED, Setting, definition, fields_of, parameters, preface, summary, words


def overview() -> str:
    lines = ["experiments, for `fmaml run NAME` and `fmaml show NAME`:"]
    lines += table([(name, packaged.headline(name)) for name in packaged.names()])
    for section, names in TABLE.items():
        lines += ["", f"{section}.name:"]
        lines += table([(name, summary(definition(entry.target))) for name, entry in names.items()])
    return "\n".join([*lines, "", f"`fmaml ls SECTION` lists settings: {', '.join([*TABLE, *SETTINGS])}."])


def section(word: str) -> str:
    """The settings of one section, by name; a plural will do."""
    name = next((s for s in (word, word.removesuffix("s")) if s in TABLE or s in SETTINGS), None)
    if name in TABLE:
        entries = [described(name, choice, entry) for choice, entry in TABLE[name].items()]
        return "\n\n".join([*([comparison()] if name == "algorithm" else []), *entries])
    if name in SETTINGS:
        found = fields_of(SETTINGS[name])
        return f"{name}\n  {summary(SETTINGS[name])}\n" + "\n".join(table(list(rows(found))))
    if word in ("experiment", "experiments"):
        return "\n".join(table([(name, packaged.headline(name)) for name in packaged.names()]))
    sections = ["experiments", *TABLE, *SETTINGS]
    near = difflib.get_close_matches(word, sections, 1)
    raise UserError(
        f"ls {word}: no such section; " + (f"did you mean {near[0]}?" if near else f"one of {', '.join(sections)}")
    )


def described(section: str, choice: str, entry: Entry) -> str:
    """What it is, for an algorithm with its paper, its equations and what it costs, and its settings."""
    about = indent(f"{preface(entry.target)}\n{measured(choice)}\n", "  ") if section == "algorithm" else ""
    return f"{section}.name: {choice}\n  {summary(definition(entry.target))}\n{about}" + "\n".join(
        table(list(rows(parameters(definition(entry.target)))))
    )


def measured(algorithm: str) -> str:
    """When to use it, and what its own experiment found; empty where there is none."""
    experiment = f"algorithms/{algorithm}"
    if experiment not in packaged.names():
        return "\n"
    found, about = packaged.header(experiment), packaged.headline(experiment).rpartition(": ")[2]
    told = {"when to use it": "when", "measured": "ours", "costs": "costs"}
    lines = [f"{key}: {found[word]}" for key, word in told.items() if word in found]
    return "\n" + "\n".join([*lines, f"by: fmaml run {experiment}, {about}"]) + "\n"


def comparison() -> str:
    """What their experiments found, side by side."""
    names = [name for name in packaged.names() if name.startswith("algorithms/")]
    lines = []
    for name in names:
        found = packaged.header(name)
        numbers = re.findall(r"[\d.]+(?= times| inner)", found.get("costs", ""))
        if len(numbers) < 3:
            continue  # not measured yet
        steps, time, memory = numbers
        lines.append((name, f"{found['ours'].split()[0]:>7} %  {steps:>5}  {time:>4}  {memory:>6}  {found['when']}"))
    heads = f"  {'experiment':{max(map(len, names))}}   accuracy  steps  time  memory  when to use it"
    said = "5-way 1-shot Omniglot, one budget for all; time and memory beside a MAML meta-step of one inner step:"
    return "\n".join([said, heads, *table(lines)])


def rows(found: dict[str, Setting]) -> Iterator[tuple[str, str]]:
    for key, setting in found.items():
        default = "required" if setting.default is REQUIRED else f"default {json.dumps(setting.default)}"
        yield key, f"{words(setting.type)} ({default})"


def table(pairs: list[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in pairs), default=0)
    return [f"  {left:{width}}  {right}" for left, right in pairs]
