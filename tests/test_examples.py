"""Every public function and class has an example in its docstring, and every example is true."""

import doctest
import re
from operator import attrgetter
from pathlib import Path

import pytest

import fmaml

ALIASES = {"Params"}  # no object of its own to document
REFERENCE = (Path(__file__).parent.parent / "docs/api/extend.md").read_text(encoding="utf-8")
OF_MODULES = re.findall(r"^::: fmaml\.(\w+\.\w+)$", REFERENCE, re.MULTILINE)  # such as data.Source
FLAGS = doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", sorted({*fmaml.__all__, *OF_MODULES} - ALIASES))
def test_the_example_is_true(name):
    examples = doctest.DocTestFinder(recurse=False).find(attrgetter(name)(fmaml), name, globs={})
    assert any(example.examples for example in examples), f"fmaml.{name} has no example: add one after >>>"
    for example in examples:
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append, clear_globs=False)
        assert result.failed == 0, "".join(said)
