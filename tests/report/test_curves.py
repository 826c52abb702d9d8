"""The plots of runs, and what becomes of them in a page."""

import math
import re

import numpy as np
import pytest
from pages import text_of

from fmaml.report.curves import by_inner_step, learning_curve, learning_curves, smooth
from fmaml.report.html_page import document
from fmaml.report.page_figure import page_figure
from fmaml.report.read_run import ReportedMetric

ACCURACY, ERROR = ReportedMetric("accuracy", ".2%"), ReportedMetric("MSE", ".3f")
NASTY = "_<b>&\"'$x$\x1b[31m"


def rows_of(kind, values, **others):
    return [{"kind": kind, "step": step, **values, **others} for step in range(1, 6)]


def results(*means):
    return [{"mean": mean, "ci95": 0.1} for mean in means]


def labels(figure):
    return figure.axes[0].get_legend_handles_labels()[1]


def page_of(*figures):
    return document("x", "", *(page_figure(figure, f"figure {i}") for i, figure in enumerate(figures)))


def test_curves_that_are_the_same_are_one():
    rows = rows_of("train", {"before": 0.5, "after": 0.5})
    assert "training tasks, adapted" in labels(learning_curve(rows, ERROR))
    assert "training tasks, not adapted" not in labels(learning_curve(rows, ERROR))
    assert "training tasks, not adapted" in labels(learning_curve([{**row, "before": 0.1} for row in rows], ERROR))


def test_gaps_do_not_spread_in_a_running_mean():
    values = np.array([math.nan, 1.0, math.inf, 3.0])
    assert np.array_equal(smooth(values, 3), [math.nan, 1.0, math.nan, 3.0], equal_nan=True)
    assert np.array_equal(smooth(np.arange(5.0), 3), [0.5, 1, 2, 3, 3.5])
    assert len(smooth(np.array([]), 1)) == 0


def test_a_fraction_is_shown_whole_an_error_from_0_and_a_loss_of_reward_below_it():
    def limits(metric, *means):
        return by_inner_step({"x": results(*means)}, metric, "", None).axes[0].get_ylim()

    assert limits(ACCURACY, 0.4, 0.5) == (0, 1.02)
    assert limits(ERROR, 4.0, 5.0)[0] == 0
    assert limits(ERROR, -30.0, -20.0)[0] < -30
    across = by_inner_step({"x": results(-30.0)}, ERROR, "", None).axes[0].get_xlim()
    assert across[0] < -30


def test_one_outlier_does_not_flatten_the_curve():
    rows = [
        {"kind": "train", "step": i, "before": 1.0, "after": 1000.0 if i == 50 else 1.0 + i % 2} for i in range(400)
    ]
    assert learning_curve(rows, ERROR).axes[0].get_ylim()[1] < 100


def test_values_that_no_step_changes_are_lines_across():
    figure = by_inner_step(
        {"a": results(0.1, 0.2, 0.3), "b": results(0.5), "c": results(0.6, 0.6, 0.6)}, ERROR, "", 0.2
    )
    across = [line for line in figure.axes[0].lines if line.get_linestyle() in ("--", ":")]
    assert all(np.array_equal(line.get_xdata(), [0, 2]) for line in across)
    assert len(across) == 3
    assert labels(figure) == ["a", "b", "c", "chance"]


def test_a_run_keeps_its_colour_where_another_has_no_results():
    both = page_of(by_inner_step({"a": results(0.1, 0.2), "b": results(0.1, 0.3)}, ERROR, "", None))
    one = page_of(by_inner_step({"a": [], "b": results(0.1, 0.3)}, ERROR, "", None))
    assert 'background:var(--c1)"></i>b' in both
    assert 'background:var(--c1)"></i>b' in one


def test_a_page_holds_whole_figures_in_its_own_colours():
    rows = [*rows_of("train", {"before": 0.1, "after": 0.5}), *rows_of("val", {"score": 0.4, "ci95": 0.1})]
    twelve = {f"run {i}": results(0.1 * i, 0.2) for i in range(12)}
    figures = [
        *(by_inner_step(twelve, ACCURACY, "", 0.2) for _ in range(2)),
        by_inner_step({"alone": results(0.5)}, ACCURACY, "", 0.2),
        learning_curve(rows, ERROR),
        learning_curves({"one": rows, "other": rows}, ERROR),
    ]
    page = page_of(*figures)
    text = text_of(page)
    for words in ("run 11", "alone", "50.00% ± 10.00%", "MSE on the query sets", "100%", "meta-steps"):
        assert words in text
    assert page.count("<svg") == len(figures)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search("#[0-9a-f]{6};|:#[0-9a-f]{6}|font-family|DejaVu|<g>", drawn), "left to the page's style"
    used = {*re.findall(r"var\((--\w+)\)", drawn)}
    assert used >= {"--c0", "--c9", "--line"}
    assert all(page.count(f"{name}: #") == 2 for name in used), "in light and in dark mode"


def test_the_same_figure_is_the_same_text():
    def drawn():
        return page_of(by_inner_step({"a": results(0.1, 0.2)}, ACCURACY, "", 0.2))

    assert drawn() == drawn()


def test_a_long_log_makes_a_small_figure():
    rows = [{"kind": "train", "step": i, "before": math.sin(i), "after": math.cos(i)} for i in range(100_000)]
    assert len(page_figure(learning_curve(rows, ERROR), "x")) < 60_000


@pytest.mark.parametrize("steps", [1, 2])
def test_any_name_is_shown_as_it_is(steps):
    page = page_of(by_inner_step({NASTY: results(*[0.1, 0.2][:steps])}, ERROR, NASTY, None))
    assert "\x1b" not in page
    assert "<b>" not in page
    assert "_<b>&\"'$x$\N{REPLACEMENT CHARACTER}[31m" in text_of(page)
