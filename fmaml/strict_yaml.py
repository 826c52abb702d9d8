"""YAML as experiments use it: one document of plain data, with numbers as YAML 1.2 spells them.

YAML 1.1, which PyYAML reads by default, takes `1e-3` for text, `on` for true and `1:30` for ninety. Anchors,
aliases and tags are refused: an experiment is short enough to be written out, and so no file grows when read.
"""

import re
from typing import Any, ClassVar

import yaml

from .errors import UserError

TAG = "tag:yaml.org,2002:"
NUMBERS = list("-+.0123456789")
PLAIN_WORDS = [  # what an unquoted word is, if not text
    (TAG + "null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (TAG + "bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (TAG + "int", r"[-+]?[0-9]+(_[0-9]+)*", NUMBERS),
    (TAG + "float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", NUMBERS),
    (TAG + "float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", NUMBERS),
]
LONGEST_NUMBER = 18  # digits: what surely fits 64 bits
DEEPEST = 20  # levels of nesting


def complaint(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar = {}  # its own: SafeLoader's belong to everyone
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses what experiments do not use before any of it is built."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise complaint("anchors and aliases are not read here; write the value out", event.start_mark)
        if getattr(event, "tag", None):
            raise complaint(f"tags such as {event.tag} are not read here; write plain values", event.start_mark)
        if self.depth == DEEPEST:
            raise complaint(f"nested more than {DEEPEST} deep", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != TAG + "str" or not key.value.isprintable():
                raise complaint("a key must be a word", key.start_mark)
            if key.value in first_lines:
                raise complaint(f"{key.value} stands twice, first in line {first_lines[key.value]}", key.start_mark)
            first_lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: Any) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise complaint(f"a whole number of more than {LONGEST_NUMBER} digits", node.start_mark)
        return int(node.value)  # not PyYAML's, to which 010 is 8


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads back: quotes the text "1e-3", and lists stand on one line."""

    yaml_implicit_resolvers: ClassVar = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for tag, pattern, first in PLAIN_WORDS:
    Loader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), first)
    Dumper.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), first)
Loader.add_constructor(TAG + "int", Loader.construct_whole_number)
Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence(TAG + "seq", items, flow_style=True))


def parse(text: str, where: str) -> Any:
    """The data in ``text``; ``where`` opens the message when it cannot be read."""
    try:
        return Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_position(error)}: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UserError(f"{where}:{line}:{column}: the character {chr(error.character)!r} is not allowed") from None


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def dump(data: Any) -> str:
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
