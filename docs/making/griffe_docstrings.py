"""Docstrings of fmaml as mkdocstrings reads them: an extension of griffe.

In the source they are plain text for `help`. On a page, what stands after ``>>>`` is an example, and ``*`` and ``<``
between words are no markup. The page of an algorithm shows the equations at the top of its file.
"""

import re
from pathlib import Path
from typing import Any

from griffe import Docstring, Extension, Function, Module, Object

CODE = re.compile(r"(``.+?``|`[^`]+`)")
PUBLIC = set(re.findall(r" as (\w+)$", (Path(__file__).parents[2] / "fmaml/__init__.pyi").read_text(), re.MULTILINE))


class Docstrings(Extension):
    def on_object(self, *, obj: Object, **ignored: Any) -> None:
        if obj.docstring is None or not obj.path.startswith("fmaml."):
            return
        text, examples = _apart(obj.docstring.value)
        equations = ""
        if (
            isinstance(obj, Function)
            and isinstance(obj.parent, Module)
            and obj.parent.path.startswith("fmaml.algorithms.")
        ):
            equations = _equations(obj.parent.docstring)
        head, _, rest = text.partition("\n\n")
        text = "\n\n".join(part for part in (_markdown(head), equations, _markdown(rest)) if part)
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
    return f"```text\n{body.strip()}\n```" if body else ""
