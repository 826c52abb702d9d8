"""Anything at all in the place of a setting, and thousands of slips of the pen: a plan, or a message that names it."""

import random
import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fmaml.config import packaged
from fmaml.config.load import load_config
from fmaml.config.registry import SETTINGS, TABLE
from fmaml.config.strict_yaml import dump_yaml
from fmaml.config.validate import TOP_LEVEL
from fmaml.errors import Error

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["conv4", "mlp", "glyphs", "adamw", "maml", "1e-3", "vmap", "../x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
SHIPPED = {
    name: packaged.FOLDER.joinpath(f"{name}.yaml").read_text(encoding="utf-8") for name in packaged.experiment_names()
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "mutant.yaml"


def plan_or_message(path: Path, text: str) -> str:
    """The message, or nothing where there is a plan; a plan must survive being written and read."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        config = load_config(str(path))
    except Error as error:
        message = str(error)
        assert all(line.startswith(str(path)) for line in message.split("\n"))
        return message
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(str(path)) == config
    return ""


@examples(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_setting_gives_a_plan_or_a_message_that_names_it(scratch, data):
    tree = yaml.safe_load(data.draw(st.sampled_from(list(SHIPPED.values()))))
    section = data.draw(st.sampled_from([*TABLE, *SETTINGS]))
    key = data.draw(st.sampled_from([*tree[section], "", "slip"]))
    name = f"{section}.{key}" if key else section
    if data.draw(st.booleans()) and key != "slip":
        del (tree[section] if key else tree)[key or section]
    else:
        (tree[section] if key else tree)[key or section] = data.draw(VALUES)
    message = plan_or_message(scratch, yaml.safe_dump(tree, sort_keys=False))
    assert not message or name in message or re.match(rf"{re.escape(str(scratch))}:\d+:\d+: ", message)


# Thousands of slips of the pen in the files that came with fmaml


def line_out(draw: random.Random, lines: list[str]) -> None:
    del lines[draw.randrange(len(lines))]


def line_twice(draw: random.Random, lines: list[str]) -> None:
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))


def lines_changed_over(draw: random.Random, lines: list[str]) -> None:
    one, two = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]


def other_type(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if ": " in line and not line.startswith("#")])
    values = ["null", "", "abc", "3", "-1", "0", "1e-3", "1e400", ".nan", "true", "[1]", "[]", "{a: 1}", "'", "["]
    lines[at] = lines[at].partition(":")[0] + ": " + draw.choice([*values, "9" * 40])


def typo(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")])
    place = draw.randrange(len(lines[at]))
    letter = draw.choice(["", draw.choice(string.ascii_letters), draw.choice("{}[]:,#&*!|>'\"%@`-? \t0.é\\")])
    lines[at] = lines[at][:place] + letter + lines[at][place + draw.randrange(2) :]


def indentation(draw: random.Random, lines: list[str]) -> None:
    at = draw.choice([i for i, line in enumerate(lines) if line.strip()])
    lines[at] = draw.choice(["", " ", "  ", "    ", "\t", "- "]) + draw.choice([lines[at], lines[at].strip()])


def cut_short(draw: random.Random, lines: list[str]) -> None:
    at = draw.randrange(len(lines))
    lines[at:] = [lines[at][: draw.randrange(len(lines[at]) + 1)]]


SLIPS = [line_out, line_twice, lines_changed_over, other_type, other_type, typo, typo, indentation, cut_short]
KEYS = {*TABLE, *SETTINGS, *TOP_LEVEL}


def slipped(draw: random.Random, text: str) -> bytes:
    """The text with one slip, or two or three, or one byte of it flipped."""
    if draw.random() < 0.15:
        content = bytearray(text.encode())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(content)
    lines = text.splitlines()
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if any(": " in line and not line.startswith("#") for line in lines):  # something is left to get wrong
            draw.choice(SLIPS)(draw, lines)
    return "\n".join(lines).encode()


WHOLE_FILE = r": not (a text file|an experiment)\b.*; "
PLACE = r":\d+:\d+: [^;]+; "  # line, column, what is wrong, what would be right
KEY = r": (?P<key>.+?)( = .+)?: .*(must |give |unknown key; )"


def settled(path: Path) -> bool:
    """Whether there is a plan, which must survive being written and read; else each line of the message is whole."""
    try:
        config = load_config(str(path))
    except Error as error:
        for line in str(error).split("\n"):
            told = line.removeprefix(str(path))
            found = re.match(f"{WHOLE_FILE}|{PLACE}|{KEY}", told)
            assert found, line
            assert not found["key"] or found["key"].split(".")[0] in KEYS or "unknown key" in told, line
        return False
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(str(path)) == config
    return True


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("slips", [65, pytest.param(3000, marks=pytest.mark.slow)])
def test_slips_in_a_shipped_file_end_in_a_plan_or_in_a_message(tmp_path, name, slips):
    """With all files at least 3,000 in all; of both ends there must be plenty."""
    assert slips * len(SHIPPED) >= 3000
    draw, path, plans = random.Random(name), tmp_path / "mutant.yaml", 0
    for _ in range(slips):
        path.write_bytes(slipped(draw, SHIPPED[name]))
        plans += settled(path)
    assert slips / 10 < plans < 9 * slips / 10
