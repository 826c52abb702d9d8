"""Files that are not an experiment are told in one line, at once."""

import time

import pytest
from example import EXAMPLE, complaints

from fmaml.config.load import load_config

BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system [exit]", ":1:4: tags such as "),
        ("a: !!python/name:os.system", ":1:4: tags such as "),
        ("!!python/module:os", ":1:1: tags such as "),
        ("a: !x 3", ":1:4: tags such as !x"),
        (BOMB, ":1:4: anchors and aliases are not supported"),
        ("a: *nowhere", ":1:4: anchors and aliases"),
        ("<<: {a: 1}", "unknown key"),
        ("a: " + "[" * 10_000, "nested more than 20 levels"),
        ("a:\n" + "- " * 10_000, "nested more than 20 levels"),
        ("a: " + "{x: " * 10_000, "nested more than 20 levels"),
        ("data:\n  ways: 5\n  ways: 6\n", ":3:3: ways is given twice, first in line 2"),
        ("1: 2", ":1:1: a key must be a word"),
        ("null: 2", ":1:1: a key must be a word"),
        ('"a\\nb": 2', ":1:1: a key must be a word"),
        ("? [a]\n: 2", ":1:3: a key must be a word"),
        ("a: 1\n\tb: 2", ":2:1: a tab; indent with spaces"),
        ("a: [1", ":1:4: a bracket that is not closed; write [1, 2]"),
        ("a: {b: 1", ":1:4: a brace that is not closed; write {key: value"),
        ("a: 'b\nc: 1", ":1:4: a quoted text that is not closed; "),
        ("a: 1\nb\n", ":2:1: a key without a colon; write key: value"),
        ("a: b: c", ":1:5: an unexpected colon, or a line indented too far; "),
        ("a: - b", ":1:4: a dash where no list can begin; "),
        ("a: ? b", ":1:4: a question mark where no key can begin; "),
        ("a:\n  b: 1\n c: 2", ":3:2: a line indented differently from those above it; "),
        ("a: [1, , 2]", ":1:8: a value is missing; "),
        ("a: @b", ":1:4: a character that cannot begin a value; "),
        ('a: "\\x"', ":1:7: an unknown escape in double quotes; "),
        ("a: |99\n b", ":1:6: text over several lines; "),
        ("a: &", ":1:5: anchors and aliases are not supported; "),
        ("a: !<x y", ":1:7: tags are not supported; "),
        ("a: !y!x 3", ":1:4: tags are not supported; "),
        ("%YAML x", ":1:7: lines that begin with % are not supported; "),
        ("a: 1\nb: 'x\0y'", ":2:6: the character '\\x00' is not allowed"),
        ("a: 1\n---\nb: 2\n", ":2:1: a second document; "),
        ("- a\n- b", "not an experiment; it needs the sections data, model"),
        ("", "not an experiment"),
        ("a: " + "9" * 5000, ":1:4: a whole number of more than 18 digits"),
        (b"\xff\xfea\x00", "not a text file (byte 0 is not UTF-8)"),
        ("a: " + "x" * 10_000_000, "larger than 64 KiB"),
        ("#" * 60_000 + "\n[" * 100, "nested"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line_at_once(write, text, said):
    path = write(text)
    begun = time.process_time()
    first, *_ = complaints(path)
    assert time.process_time() - begun < 1
    assert first.startswith(path)
    assert said in first


def test_a_byte_order_mark_is_no_fault(write):
    assert load_config(write(b"\xef\xbb\xbf" + EXAMPLE.encode()))["name"] == "mine"


@pytest.mark.parametrize(
    ("file", "name"),
    [("my own.yaml", "my-own"), ("_x.yaml", "x"), ("größe (2).yaml", "gr-e-2"), ("опыт.yaml", "experiment")],
)
def test_a_file_name_that_is_no_folder_name_gives_one_that_is(write, file, name):
    notes: list[str] = []
    assert load_config(write(EXAMPLE, file), (), notes.append)["name"] == name
    assert notes == [f"name = {name}, after the file's name"]
    assert load_config(write("name: fine\n" + EXAMPLE, file))["name"] == "fine"


def test_a_long_file_name_gives_a_name_cut_short(write):
    assert load_config(write(EXAMPLE, "x" * 80 + ".yaml"))["name"] == "x" * 64
