"""Docstrings of fmaml as mkdocstrings reads them: an extension of griffe.

In the source they are plain text for `help`. On a page, what stands after ``>>>`` is an example, and ``*`` and ``<``
between words are no markup. Of an algorithm the equations at the top of its file are shown, of a class its fields with
the comments beside them, which tell shapes.
"""

import re
from pathlib import Path
from typing import Any

from griffe import Class, Docstring, Extension, Function, Module, Object

CODE = re.compile(r"(``.+?``|`[^`]+`)")
PUBLIC = set(
    re.findall(r"^from \.\w.* as (\w+)$", (Path(__file__).parents[2] / "fmaml/__init__.pyi").read_text(), re.MULTILINE)
)


class Docstrings(Extension):
    def on_object(self, *, obj: Object, **ignored: Any) -> None:
        if obj.docstring is None or isinstance(obj, Module) or not obj.path.startswith("fmaml."):
            return
        text, examples = _apart(obj.docstring.value)
        beside = ""
        if (
            isinstance(obj, Function)
            and isinstance(obj.parent, Module)
            and obj.parent.path.startswith("fmaml.algorithms.")
        ):
            beside = _equations(obj.parent.docstring)
        if isinstance(obj, Class):
            beside = _fields(obj)
        head, _, rest = text.partition("\n\n")
        text = "\n\n".join(part for part in (_markdown(head), beside, _markdown(rest)) if part)
        if examples:
            text += "\n\nExamples:\n" + "\n".join(f"    {line}".rstrip() for line in examples)
        obj.docstring.value = text


def _markdown(text: str) -> str:
    parts = enumerate(CODE.split(text))
    return "".join(_linked(part) if i % 2 else re.sub(r"([*<[])", r"\\\1", part) for i, part in parts)


def _linked(code: str) -> str:
    """A public name in backticks leads to its place."""
    word = code.strip("`")
    name = word.removeprefix("fmaml.")
    return f"[`{word}`][fmaml.{name}]" if name in PUBLIC else code


def _apart(docstring: str) -> tuple[str, list[str]]:
    """The text before the first ``>>>``, and the lines from there."""
    lines = docstring.split("\n")
    first = next((i for i, line in enumerate(lines) if line.startswith(">>>")), len(lines))
    return "\n".join(lines[:first]).rstrip(), lines[first:]


def _equations(docstring: Docstring | None) -> str:
    _, _, body = docstring.value.partition("\n\n") if docstring else ("", "", "")
    return f"```text\n{body.strip().replace('``', '')}\n```" if body else ""


def _fields(obj: Class) -> str:
    """The lines of the class's fields, a comment below one included."""
    lines = re.findall(r"^    (\w+: .*|# .*)$", obj.source.rpartition('"""')[2] if _flat(obj) else "", re.MULTILINE)
    return "```python\n" + "\n".join(lines) + "\n```" if lines else ""


def _flat(obj: Class) -> bool:
    """Whether its docstring is the only one inside, and what comes after it its fields."""
    return obj.source.count('"""') == 2
