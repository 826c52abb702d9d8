"""The style of CONTRIBUTING.md, as far as a program can check it."""

import pytest
from prose import checked_files, faults_in

EXCEPTIONS = {line for line in open("tests/prose_exceptions.txt", encoding="utf-8").read().splitlines() if line}


@pytest.mark.parametrize("path", checked_files(), ids=str)
def test_sentences_are_short_and_plain(path):
    faults = [fault for fault in faults_in(path) if f"{fault.file}: {fault.sentence}" not in EXCEPTIONS]
    assert not faults, "\n".join(map(str, faults))
