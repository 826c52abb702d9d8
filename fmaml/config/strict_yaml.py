"""YAML as experiments use it: one document of plain data, with numbers as YAML 1.2 spells them.

YAML 1.1, which PyYAML reads by default, takes `1e-3` for text, `on` for true and `1:30` for ninety. Anchors,
aliases and tags are refused: an experiment is short enough to be written out, and so no file grows when read.
"""

import re
from typing import Any, ClassVar

import yaml

from ..errors import UserError

TAG = "tag:yaml.org,2002:"
FIRST_OF_NUMBER = list("-+.0123456789")
PLAIN_WORDS = [  # what an unquoted word is, if not text
    (TAG + "null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (TAG + "bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (TAG + "int", r"[-+]?[0-9]+(_[0-9]+)*", FIRST_OF_NUMBER),
    (TAG + "float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", FIRST_OF_NUMBER),
    (TAG + "float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", FIRST_OF_NUMBER),
]
LONGEST_NUMBER = 18  # digits: what surely fits 64 bits
DEEPEST = 20  # levels of nesting
OPENED = {  # what PyYAML says of something that does not end -> what is told of the place where it began
    "could not find expected ':'": "a key without a colon; write key: value",
    "expected ',' or ']'": "a bracket that is not closed; write [1, 2]",
    "expected ',' or '}'": "a brace that is not closed; write {key: value, key: value}",
    "found unexpected": "a text in quotes that is not closed; put the same quote at its end",
}
FOUND = {  # what PyYAML says, or says it was doing -> what is told of the place where it shows
    "mapping values are not allowed": "a colon too many, or a line too far to the right; write one key: value a line, "
    "and text with a colon in quotes",
    "sequence entries are not allowed": "a dash where no list can begin; write a list in brackets: [1, 2]",
    "mapping keys are not allowed": "a question mark where no key can begin; write such text in quotes",
    "expected <block end>": "a line indented in another way than those above it; indent the keys of a section alike",
    "expected the node content": "a value is missing; write one before this",
    "found character '\\t'": "a tab; indent with spaces",
    "cannot start any token": "a character that begins no value; write such text in quotes",
    "double-quoted scalar": "a backslash that means nothing in double quotes; use single quotes",
    "block scalar": "text over several lines; write it on one, in quotes",
    "an anchor": "anchors and aliases are not read here; write the value out",
    "an alias": "anchors and aliases are not read here; write the value out",
    "tag": "tags are not read here; write plain values",
    "irective": "lines that begin with % are not read here; remove it",
    "document": "a second document; give one experiment, without --- or ...",
}


class Complaint(yaml.MarkedYAMLError):
    """Of ours, in words of ours."""


def complaint(problem: str, mark: yaml.Mark) -> Complaint:
    return Complaint(problem=problem, problem_mark=mark)


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar = {}  # its own: SafeLoader's belong to everyone
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses what experiments do not use before any of it is built."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise complaint(FOUND["an alias"], event.start_mark)
        if getattr(event, "tag", None):
            raise complaint(f"tags such as {event.tag} are not read here; write plain values", event.start_mark)
        if self.depth == DEEPEST:
            raise complaint(f"nested more than {DEEPEST} deep; an experiment has keys in sections", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != TAG + "str" or not key.value.isprintable():
                raise complaint("a key must be a word; write one, such as ways", key.start_mark)
            if key.value in first_lines:
                said = f"{key.value} stands twice, first in line {first_lines[key.value]}; keep one of them"
                raise complaint(said, key.start_mark)
            first_lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: Any) -> int:
        if len(node.value) > LONGEST_NUMBER:
            raise complaint(f"a whole number of more than {LONGEST_NUMBER} digits; give less", node.start_mark)
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


def parse_yaml(text: str, where: str) -> Any:
    """The data in ``text``; ``where`` opens the message when it cannot be read."""
    try:
        return Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}{_told(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        said = f"the character {chr(error.character)!r} is not allowed; remove it"
        raise UserError(f"{where}:{line}:{column}: {said}") from None


def _told(error: yaml.MarkedYAMLError) -> str:
    """``:line:column: what is wrong; what would be right``."""
    said = "" if isinstance(error, Complaint) else f"{error.problem} {error.context}"
    opened = next((words for text, words in OPENED.items() if text in said), None)
    mark = error.context_mark if opened else error.problem_mark
    words = opened or next((words for text, words in FOUND.items() if text in said), error.problem)
    return f":{mark.line + 1}:{mark.column + 1}: {words}" if mark else f": {words}"


def dump_yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110)
