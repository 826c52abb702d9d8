"""The style of CONTRIBUTING.md, as far as a program can check it."""

from pathlib import Path

import pytest
from prose import ROOT, broken_rules, checked_files, faults_in, sentences

EXCEPTIONS = Path(__file__).with_name("prose_exceptions.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("path", checked_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sentences_are_short_and_plain(path):
    faults = [fault for fault in faults_in(path) if f"{fault.file}: {fault.sentence}" not in EXCEPTIONS]
    assert not faults, "\n".join(map(str, faults))


def test_every_exception_is_needed():
    faults = {f"{fault.file}: {fault.sentence}" for path in checked_files() for fault in faults_in(path)}
    assert set(EXCEPTIONS) <= faults


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("A model whose head is made for each task.", '"whose"'),
        ("Say what is lacking.", '"what is"'),
        ("Nobody has run it on a GPU.", '"Nobody has"'),
        ("word " * 26, "26 words"),
        ("A prediction depends on the support set and that picture alone.", None),
        ("word " * 25, None),
    ],
)
def test_the_checker_finds_faults(sentence, rule):
    assert next(broken_rules(sentence), None) == rule


def test_sentences_end_at_points_lists_and_blank_lines():
    text = "One `a. b` two. Three, e.g. four:\n- five\n- six\n\nSeven"
    assert sentences(text) == ["One code two.", "Three, e.g four", "five", "six", "Seven"]
