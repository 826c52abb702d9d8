"""What `fmaml ls` prints: the packaged experiments, and the names and settings of every section."""

import difflib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable

from ..config import packaged
from ..errors import Error
from ..setting_types import Meaning
from .registry import SETTINGS, TABLE, find_entry, known_names
from .signature import REQUIRED, Setting, dataclass_settings, function_settings
from .source_text import find_function, module_docstring, summary
from .value_descriptions import describe_values

HEADER_LABELS = {"when": "when to use it", "ours": "measured", "costs": "costs"}  # header key -> label in the listing
LEAST_TEXT_WIDTH = 24  # columns
COSTS = re.compile(r"[\d.]+(?= times| inner)")  # inner steps, time and memory in the header's line of costs
IN_COLUMNS = "{:>7} %  {:>5}  {:>4}  {:>6}  "  # accuracy, steps, time and memory of an algorithm
IN_WORDS = "accuracy {} %, steps {}, time {}, memory {}; "


def overview() -> str:
    """The packaged experiments, the examples of the checkout, and the names that each section can take."""
    lines = ["experiments, for `fmaml run NAME` and `fmaml show NAME`:", *experiment_lines()]
    if examples := [(str(path), packaged.headline(path)) for path in packaged.example_files()]:
        lines += ["", "examples, for `fmaml run FILE` and `fmaml show FILE`:", *align_columns(examples)]
    for section in TABLE:
        lines += ["", f"{section}.name:"]
        lines += align_columns([(name, summary_line(section, name)) for name in known_names(section)])
    lines += ["", f"`fmaml ls SECTION` lists settings: {', '.join([*TABLE, *SETTINGS])}."]
    return "\n".join([*lines, "`fmaml ls models` lists trained models, for `fmaml predict` and `fmaml test`."])


def describe_section(word: str) -> str:
    """The settings of the section ``word``, which may be a plural.

    Raises Error if there is no such section.
    """
    for section in (word, word.removesuffix("s")):
        if section in TABLE:
            return _describe_names(section)
        if section in SETTINGS:
            settings = SETTINGS[section]
            lines = setting_lines(dataclass_settings(settings))
            return "\n".join([section, f"  {summary(settings)}", *lines])
        if section == "experiment":
            return "\n".join(experiment_lines())
    sections = ["experiments", *TABLE, *SETTINGS]
    closest = difflib.get_close_matches(word, sections, 1)
    cure = f"did you mean {closest[0]}?" if closest else f"one of {', '.join(sections)}"
    raise Error(f"ls {word}: no such section; {cure}")


def _describe_names(section: str) -> str:
    entries = [describe_entry(section, name) for name in known_names(section)]
    if section == "algorithm":
        entries.insert(0, algorithm_comparison())
    return "\n\n".join(entries)


def summary_line(section: str, name: str) -> str:
    """The summary of a name's function in one line, or the reason why the function cannot be used."""
    try:
        return summary(find_function(find_entry(section, name).target))
    except Error as error:
        return f"cannot be used: {error}"


def describe_entry(section: str, name: str) -> str:
    """One name's summary and settings; for an algorithm also its paper, its equations and its measurements."""
    title = f"{section}.name: {name}"
    try:
        target = find_entry(section, name).target
        settings = function_settings(find_function(target))
    except Error as error:
        return f"{title}\n  cannot be used: {error}"
    lines = [title, f"  {summary_line(section, name)}"]
    if section == "algorithm":
        lines.append(textwrap.indent(f"{plain(module_docstring(target))}\n{measurements(name)}", "  "))
    return "\n".join([*lines, *setting_lines(settings)])


def measurements(algorithm: str) -> str:
    """The use of the algorithm and the measurements of its experiment; an empty line if it has no experiment."""
    experiment = f"algorithms/{algorithm}"
    if experiment not in packaged.experiment_names():
        return "\n"
    header = packaged.header(experiment)
    lines = [f"{label}: {plain(header[key])}" for key, label in HEADER_LABELS.items() if key in header]
    protocol = packaged.headline(experiment).rpartition(": ")[2]
    return "\n" + "\n".join([*lines, f"by: fmaml run {experiment}, {protocol}"]) + "\n"


def algorithm_comparison() -> str:
    """A table of the measurements of the algorithms' experiments, one row for each measured algorithm."""
    names = [name for name in packaged.experiment_names() if name.startswith("algorithms/")]
    width = max(map(len, names))
    form = IN_WORDS if is_narrow(width) else IN_COLUMNS
    rows: list[tuple[str, str]] = []
    for name in names:
        header = packaged.header(name)
        costs = COSTS.findall(header.get("costs", ""))
        if len(costs) == 3:
            rows.append((name, form.format(header["ours"].split()[0], *costs) + header["when"]))
    lines = ["5-way 1-shot Omniglot, one budget for all; time and memory beside a MAML meta-step of one inner step:"]
    if form is IN_COLUMNS:
        lines.append(f"  {'experiment':{width}}   accuracy  steps  time  memory  when to use it")
    return "\n".join([*lines, *align_columns(rows)])


def experiment_lines() -> list[str]:
    """One line for each packaged experiment: its name and its headline."""
    return align_columns([(name, packaged.headline(name)) for name in packaged.experiment_names()])


def setting_lines(settings: dict[str, Setting]) -> list[str]:
    """One line for each setting: key, values, default, and the meaning if it has one."""
    rows: list[tuple[str, str]] = []
    for key, setting in settings.items():
        default = "required" if setting.default is REQUIRED else f"default {json.dumps(setting.default)}"
        meaning = "".join(f": {plain(mark.meaning)}" for mark in setting.marks if isinstance(mark, Meaning))
        rows.append((key, f"{describe_values(setting.type)} ({default}){meaning}"))
    return align_columns(rows)


def plain(text: str) -> str:
    """The text of a docstring as a terminal shows it, without the marks around code."""
    return text.replace("``", "")


def align_columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Indented lines of two columns, the first as wide as its longest entry; in a narrow terminal the second below."""
    rows = list(rows)
    width = max((len(left) for left, _ in rows), default=0)
    if is_narrow(width):
        return [line for left, right in rows for line in (f"  {left}", *wrapped(right))]
    return [f"  {left:{width}}  {right}" for left, right in rows]


def wrapped(text: str) -> list[str]:
    """The text in indented lines of the terminal's width, with every word whole."""
    width = max(1, terminal_width() - 4)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [f"    {line}" for line in lines]


def is_narrow(left: int) -> bool:
    """Whether the terminal has no room for text beside a column of this width."""
    return terminal_width() < left + LEAST_TEXT_WIDTH


def terminal_width() -> int:
    """The columns of the terminal, or of the variable COLUMNS; without either as many as there can be."""
    return shutil.get_terminal_size((sys.maxsize, 0)).columns
