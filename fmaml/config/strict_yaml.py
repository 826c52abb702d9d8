"""The subset of YAML for experiments: one document of plain data, with the numbers of YAML 1.2.

PyYAML's default, YAML 1.1, reads `1e-3` as text, `on` as true and `1:30` as ninety. Anchors, aliases and tags are
refused. Experiments do not need them, and nested aliases could expand without limit.
"""

import re
from typing import Any, ClassVar

import yaml

from ..errors import Error

TAG = "tag:yaml.org,2002:"
NUMBER_START = list("-+.0123456789")
UNQUOTED_VALUES = [  # (tag, pattern, first characters) of the unquoted values that are not text
    (TAG + "null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (TAG + "bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (TAG + "int", r"[-+]?[0-9]+(_[0-9]+)*", NUMBER_START),
    (TAG + "float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", NUMBER_START),
    (TAG + "float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", NUMBER_START),
]
MAX_INTEGER_DIGITS = 18  # any integer of 18 digits fits in 64 bits
MAX_DEPTH = 20  # levels of nesting
NO_ALIASES = "anchors and aliases are not supported; write the value out"
MESSAGES_AT_START = {  # part of PyYAML's message -> our message, reported where the unfinished construct starts
    "could not find expected ':'": "a key without a colon; write key: value",
    "expected ',' or ']'": "a bracket that is not closed; write [1, 2]",
    "expected ',' or '}'": "a brace that is not closed; write {key: value, key: value}",
    "found unexpected": "a quoted text that is not closed; put the same quote at its end",
}
MESSAGES_AT_PROBLEM = {  # part of PyYAML's message or context -> our message, reported where the problem is
    "mapping values are not allowed": "an unexpected colon, or a line indented too far; write one key: value a line, "
    "and text with a colon in quotes",
    "sequence entries are not allowed": "a dash where no list can begin; write a list in brackets: [1, 2]",
    "mapping keys are not allowed": "a question mark where no key can begin; write such text in quotes",
    "expected <block end>": "a line indented differently from those above it; indent the keys of a section alike",
    "expected the node content": "a value is missing; write one before this",
    "found character '\\t'": "a tab; indent with spaces",
    "cannot start any token": "a character that cannot begin a value; write such text in quotes",
    "double-quoted scalar": "an unknown escape in double quotes; use single quotes",
    "block scalar": "text over several lines; write it on one, in quotes",
    "an anchor": NO_ALIASES,
    "an alias": NO_ALIASES,
    "tag": "tags are not supported; write plain values",
    "irective": "lines that begin with % are not supported; remove it",
    "document": "a second document; give one experiment, without --- or ...",
}


class UserYamlError(yaml.MarkedYAMLError):
    """A YAML error with a message for the user, unlike PyYAML's own errors."""


def yaml_error(problem: str, mark: yaml.Mark) -> UserYamlError:
    """The error for ``problem`` at the place ``mark``."""
    return UserYamlError(problem=problem, problem_mark=mark)


class Loader(yaml.SafeLoader):
    """A safe loader that also refuses anchors, aliases, tags, repeated keys, deep nesting and long integers."""

    yaml_implicit_resolvers: ClassVar = {}  # separate from SafeLoader's, which other users of PyYAML share
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse unsupported YAML before building anything of it."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml_error(NO_ALIASES, event.start_mark)
        if getattr(event, "tag", None):
            raise yaml_error(f"tags such as {event.tag} are not supported; write plain values", event.start_mark)
        if self.depth == MAX_DEPTH:
            raise yaml_error(f"nested more than {MAX_DEPTH} levels; write keys in sections", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse keys that are not words, and repeated keys."""
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != TAG + "str" or not key.value.isprintable():
                raise yaml_error("a key must be a word; write one, such as ways", key.start_mark)
            if key.value in first_lines:
                problem = f"{key.value} is given twice, first in line {first_lines[key.value]}; keep one of them"
                raise yaml_error(problem, key.start_mark)
            first_lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: Any) -> int:
        """A decimal integer; PyYAML itself would read 010 as 8."""
        if len(node.value) > MAX_INTEGER_DIGITS:
            raise yaml_error(f"a whole number of more than {MAX_INTEGER_DIGITS} digits; give less", node.start_mark)
        return int(node.value)


class Dumper(yaml.SafeDumper):
    """Writes YAML for `Loader`: the text "1e-3" in quotes, and each list on one line."""

    yaml_implicit_resolvers: ClassVar = {}

    def ignore_aliases(self, data: Any) -> bool:
        """Write a repeated value in full each time."""
        return True


for tag, pattern, first_characters in UNQUOTED_VALUES:
    Loader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), first_characters)
    Dumper.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), first_characters)
Loader.add_constructor(TAG + "int", Loader.construct_integer)
Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence(TAG + "seq", items, flow_style=True))


def parse_yaml(text: str, where: str) -> Any:
    """The data in ``text``.

    Raises Error with a message that begins with ``where``, if the text is not YAML or uses unsupported features.
    """
    try:
        return Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise Error(f"{where}{_describe_error(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        problem = f"the character {chr(error.character)!r} is not allowed; remove it"
        raise Error(f"{where}:{line}:{column}: {problem}") from None


def _describe_error(error: yaml.MarkedYAMLError) -> str:
    """``:line:column: problem; cure``."""
    mark, message = error.problem_mark, error.problem
    if not isinstance(error, UserYamlError):
        original = f"{error.problem} {error.context}"
        if at_start := _first_match(MESSAGES_AT_START, original):
            mark, message = error.context_mark, at_start
        else:
            message = _first_match(MESSAGES_AT_PROBLEM, original) or error.problem
    return f":{mark.line + 1}:{mark.column + 1}: {message}" if mark else f": {message}"


def _first_match(messages: dict[str, str], original: str) -> str | None:
    return next((message for part, message in messages.items() if part in original), None)


def dump_yaml(data: Any) -> str:
    """``data`` as YAML, keys in their order; `parse_yaml` reads the same data back."""
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
