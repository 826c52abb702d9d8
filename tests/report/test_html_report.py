"""report.html: whole, without network, for every kind of task, and never in the way of a run."""

import re

import pytest
import torch
from pages import text_of
from rich.console import Console

from fmaml.cli.main import main
from fmaml.intervals import wilson_interval
from fmaml.meta_testing.predictions import NamedTask, most_confused
from fmaml.report import html_report
from fmaml.report.html_page import bars, document, html_table, section
from fmaml.report.read_run import metrics_of, read_run
from fmaml.report.run_sections import trouble_section
from fmaml.types import Batch, Task

NASTY = "<b>&\"'</b>\x1b[31m"
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "train.baseline=false", "eval.tasks=3"]
GLYPHS = ["data.name=glyphs", "data.queries=2", "model.width=4"]


def page_of(folder) -> str:
    return text_of((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.pictures
@pytest.mark.parametrize(
    ("experiment", "overrides", "expected"),
    [
        ("omniglot", GLYPHS, ["Test tasks", "glyph 1", "Change by adaptation", "conv1.weight", "chance"]),
        ("omniglot_prototypes", GLYPHS, ["Test tasks", "without inner steps", "± ", "chance"]),
        ("sinusoid", [], ["support set", "task 1: y", "MSE"]),
        ("markov", ["eval.steps=1", "algorithm.steps=1"], ["before adaptation", "best possible (Bayes)"]),
    ],
)
def test_every_kind_of_task_has_its_page(tmp_path, capsys, experiment, overrides, expected):
    assert main(["run", experiment, *overrides, *SMALL, "--out", str(tmp_path / "a"), "--device", "cpu"]) == 0
    page = (tmp_path / "a/report.html").read_text(encoding="utf-8")
    text = text_of(page) + page
    assert "Left out" not in text
    assert "was not written" not in capsys.readouterr().out
    assert [words for words in [*expected, "Learning curve", "Model card", "config.yaml"] if words not in text] == []


def test_a_report_that_fails_leaves_the_run_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(html_report, "results_section", lambda run: 1 / 0)
    assert main(["run", "sinusoid", *SMALL, "--out", str(tmp_path / "a"), "--device", "cpu"]) == 0
    assert "report.html was not written (ZeroDivisionError" in capsys.readouterr().out
    assert (tmp_path / "a/results.json").exists()
    assert not (tmp_path / "a/report.html").exists()


@pytest.mark.pictures
def test_a_section_that_fails_is_left_out(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError(NASTY)

    monkeypatch.setattr(html_report, "change_by_parameter", fail)
    assert main(["run", "sinusoid", *SMALL, "--out", str(tmp_path / "a"), "--device", "cpu"]) == 0
    assert "Left out" in page_of(tmp_path / "a")


@pytest.mark.pictures
def test_a_diverged_run_says_so(tmp_path):
    diverges = ["algorithm.inner_lr=1e30", "train.meta_steps=0"]
    assert main(["run", "sinusoid", *SMALL, *diverges, "--out", str(tmp_path / "a"), "--device", "cpu"]) == 0
    text = page_of(tmp_path / "a")
    assert "Diverged" in text
    assert "not finite" in text
    assert trouble_section(read_run(tmp_path / "a"))


def test_all_text_is_escaped():
    page = document(NASTY, "", section(NASTY, html_table([NASTY], [[NASTY]]), bars(NASTY, [(NASTY, 1.0, NASTY)])))
    assert "\x1b" not in page
    assert "<b>" not in page
    assert text_of(page).count("<b>&\"'</b>") == 6


def test_the_longest_bar_is_as_wide_as_there_is_room():
    drawn = bars("x", [("a", 0.5, ""), ("b", 2.0, ""), ("c", float("nan"), "")])
    assert re.findall(r"width:([\d.]+%)", drawn) == ["25.00%", "100.00%", "0.00%"]


def test_confusions_are_counted_for_pairs():
    x = torch.zeros(3, 1, 2, 2)
    task = Task(Batch(x, torch.arange(3)), Batch(x, torch.tensor([0, 1, 2])))
    said = torch.eye(3)[torch.tensor([1, 1, 2])]  # the first is taken for the second
    [found] = most_confused([NamedTask(task, ["b", "a", "c"], said)] * 4, 5)
    assert found.names == ("a", "b")
    assert (found.mistakes, found.queries, found.tasks) == (4, 8, 4)
    assert wilson_interval(0, 10)[0] == pytest.approx(0)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_damaged_rows_of_the_log_are_passed_over(tmp_path):
    rows = ['{"kind": "train", "step": 1, "after": 0.5}', '{"kind": "train", "step": 2, "after": "x"}', "[1]", '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    assert [row["step"] for row in metrics_of(tmp_path)] == [1]


def test_no_folder_is_no_reason_to_fail(tmp_path, capsys):
    html_report.write_report(Console(), tmp_path / "gone", lambda: None, *[None] * 3)  # type: ignore[arg-type]
    assert "was not written" in capsys.readouterr().out
