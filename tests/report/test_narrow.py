"""In a terminal of few columns every number is there, whole, and nothing fails."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import termios

import children
import pytest
from rich.console import Console

from fmaml.cli.main import main
from fmaml.config import packaged
from fmaml.data.source import ACCURACY
from fmaml.meta_testing.scores import Interval
from fmaml.report.results import print_results

SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false", "eval.tasks=2"]
LABELS = ["transductive (all queries together)", "inductive (each query alone with the support set)"]
RESULTS = {label: [Interval(0.2, 0.01), Interval(0.9712, 0.0042 + i)] for i, label in enumerate(LABELS)}


def in_a_terminal(columns: int, *argv: str) -> tuple[int, str]:
    """The exit code of a command and what it showed in a terminal of so many columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = children.start(lambda: main(list(argv)), its, its, its, {"TERM": "xterm", "COLUMNS": None})
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # the child has ended
        while part := os.read(ours, 4096):
            shown += part
    code = child.wait(children.PATIENCE)
    os.close(ours)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_a_run_shows_every_number_of_its_results(tmp_path):
    code, shown = in_a_terminal(10, "run", "sinusoid", *SMALL, "--out", str(tmp_path / "out"))
    assert code == 0, shown
    assert "…" not in shown, "something was cut"
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    scores = [score for column in results.values() for score in column]
    assert len(scores) > 2
    for score in scores:
        assert f"{score['mean']:.3f}±{score['ci95']:.3f}" in without_spaces(shown)
    assert "queryloss" in without_spaces(shown), "the numbers of training"


@pytest.mark.parametrize("columns", [1, 10, 20, 30, 43, 44, 60, 80, 200])
def test_the_results_are_whole_at_every_width(columns):
    file = io.StringIO()
    print_results(Console(file=file, width=columns), RESULTS, ACCURACY, "the title", "the protocol")
    shown = file.getvalue()
    for column in RESULTS.values():
        for score in column:
            assert ACCURACY.write(*score) in shown
    for text in ("transductive", "queries", "inductive", "support", "the protocol"):
        assert without_spaces(text) in without_spaces(shown)
    assert "…" not in shown
    assert ("┏" in shown) == (columns >= 60), "a table where it fits"


@pytest.mark.parametrize("columns", [1, 10, 25, 40])
@pytest.mark.parametrize("argv", [["ls"], ["ls", "algorithms"], ["ls", "data"], ["ls", "train"], ["show", "omniglot"]])
def test_lists_break_between_words_and_lose_none(monkeypatch, capsys, columns, argv):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(argv) == 0
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(argv) == 0
    narrow = capsys.readouterr().out
    lost = set(wide.split()) - set(narrow.split())
    assert {word for word in lost if without_spaces(word) not in without_spaces(narrow)} <= {"experiment"}
    if argv == ["ls"]:
        texts = [line for line in narrow.splitlines() if line.startswith("    ")]
        assert len(texts) > 50
        assert all(len(line) <= max(columns, 4 + len(line.split()[0])) for line in texts)


def test_the_numbers_of_the_algorithms_are_named_where_there_is_no_heading(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "10")
    assert main(["ls", "algorithms"]) == 0
    accuracy = packaged.header("algorithms/anil")["ours"].split()[0]
    assert f"algorithms/anil accuracy {accuracy} %, steps 5, time" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["resume", "--help"], ["ls", "--help"], ["ls", "qqq"]])
def test_help_and_messages_do_not_fail(argv):
    code, shown = in_a_terminal(10, *argv)
    assert code == (2 if "qqq" in argv else 0)
    assert "Traceback" not in shown


def test_a_table_of_many_columns_is_whole_or_a_list():
    names = ("maml", "fine-tuned from prototypes by sgd at 0.01")
    results = {f"{name} ({how})": [Interval(1.0, 0.12)] for name in names for how in ("each query alone", "all")}
    for width in range(20, 140):
        shown = io.StringIO()
        print_results(Console(file=shown, width=width), results, ACCURACY, "accuracy", "protocol")
        assert shown.getvalue().count("100.00% ± 12.00%") == 4, width
        rows = [line for line in shown.getvalue().splitlines() if "│" in line]
        assert all(row.rstrip().endswith("│") for row in rows), width


def test_an_algorithm_without_inner_steps_has_no_numbers_of_them():
    one = {"protonet (transductive)": [Interval(0.9, 0.01)], "protonet (inductive)": [Interval(0.8, 0.02)]}
    for width in (30, 100):
        assert "inner step" not in shown_lines(one, width)
        assert "90.00% ± 1.00%" in shown_lines(one, width)
    assert "protonet (inductive): 80.00% ± 2.00%" in shown_lines(one, 30)
    assert "80.00% ± 2.00% │" in shown_lines(one, 100)
    both = {**one, "fine-tuned (inductive)": [Interval(0.5, 0.1), Interval(0.6, 0.1)]}
    assert "inner steps" in shown_lines(both, 100), "another column has them"


def shown_lines(results, width: int) -> str:
    file = io.StringIO()
    print_results(Console(file=file, width=width), results, ACCURACY, "accuracy", "protocol")
    return file.getvalue()
