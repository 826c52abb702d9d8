"""The page of `fmaml compare`: what it prints, and the curves of all runs in one picture."""

from typing import Any

from .charts import Curve, IntervalRow, ends_of_intervals, interval_chart, line_chart, score_scale, smoothed
from .compare import NOTE, Comparison, aligned_columns, result_rows, verdicts
from .html_page import document, escape, html_table, paragraph, section
from .read_run import PastRun
from .run_sections import axis_writer, is_fraction, metric_name
from .scales import scale_of, whole_scale


def comparison_page(comparison: Comparison) -> str:
    """The whole page."""
    names = [compared.name for compared in comparison.runs]
    metrics = dict.fromkeys(metric_name(compared.run) for compared in comparison.runs if compared.run.results)
    charts = [chart for metric in metrics for chart in charts_of(comparison, metric)]
    unfinished = [compared.name for compared in comparison.runs if compared.run.results is None]
    said = "".join(f"<li>{escape(line)}</li>" for line in verdicts(comparison))
    return document(
        f"fmaml compare: {', '.join(names)}",
        f"<header><h1>{len(names)} runs compared</h1>{paragraph(', '.join(names), 'lead')}</header>",
        section(
            "Results",
            *charts,
            grid(names, result_rows(comparison), numbers=True),
            paragraph(f"No results yet: {', '.join(unfinished)}") if unfinished else "",
        ),
        section("Paired tests", f"<ul>{said}</ul>", paragraph(NOTE, "quiet")) if said else "",
        section("Settings that differ", grid(names, list(comparison.settings.items())) or paragraph("None.")),
        section("Learning curves", learning_chart(comparison)),
    )


def grid(names: list[str], rows: list[tuple[str, list[str]]], numbers: bool = False) -> str:
    """A table with a column for each run; "" without rows."""
    columns = range(1, 1 + len(names)) if numbers else ()
    return html_table(["", *names], [[heading, *cells] for heading, cells in rows], columns) if rows else ""


def charts_of(comparison: Comparison, metric: str) -> list[str]:
    """For each column of results the runs with this metric: by inner step, or as intervals where none has steps."""
    runs = [
        (i, found.name, found.run)
        for i, found in enumerate(comparison.runs)
        if metric_name(found.run) == metric and found.run.results
    ]
    labels = dict.fromkeys(label for _, _, run in runs for label in aligned_columns(run))
    charts: list[str] = []
    for label in labels:
        own = [
            (color, name, run, aligned_columns(run)[label])
            for color, name, run in runs
            if aligned_columns(run).get(label)
        ]
        title = f"{metric} on unseen tasks: {label}"
        charts.append(f"<h3>{escape(title)}</h3>\n" + column_chart(title, own))
    return charts


def column_chart(title: str, runs: list[tuple[int, str, PastRun, list[dict[str, Any]]]]) -> str:
    """One column of results of several runs; what takes no inner steps is a line across, or all are intervals."""
    longest, first = max(len(rows) for *_, rows in runs), runs[0][2]
    curves: list[Curve] = []
    for color, name, _, rows in runs:
        flat = len(rows) == 1
        shown = rows * longest if flat else rows
        means, halves = [row["mean"] for row in shown], [row["ci95"] for row in shown]
        curves.append(Curve(name, range(len(shown)), means, halves, color, "curve dashed" if flat else "dots"))
    scale = score_scale(ends_of_intervals(curves), is_fraction(first))
    if longest > 1:
        return line_chart(title, "inner steps", curves, whole_scale(longest - 1), scale, axis_writer(first))
    rows = [
        IntervalRow(name, own[0]["mean"], own[0]["ci95"], run.write(own[0]["mean"], own[0]["ci95"]), color)
        for color, name, run, own in runs
    ]
    return interval_chart(title, rows, scale, axis_writer(first))


def learning_chart(comparison: Comparison) -> str:
    """Validation, or where there is little of it smoothed training, of all runs that share the first run's metric."""
    first = comparison.runs[0].run
    curves: list[Curve] = []
    for color, (compared, rows) in enumerate(zip(comparison.runs, comparison.rows, strict=True)):
        if metric_name(compared.run) != metric_name(first):
            continue
        train = [row for row in rows if row.get("kind") == "train"]
        val = [row for row in rows if row.get("kind") == "val"]
        curves.append(
            Curve(
                f"{compared.name}: training, adapted",
                [row["step"] for row in train],
                smoothed([row.get("after") for row in train]),
                (),
                color,
            )
        )
        x, y, half = ([row.get(key) for row in val] for key in ("step", "score", "ci95"))
        curves.append(Curve(f"{compared.name}: validation", [float(step or 0) for step in x], y, half, color, "dots"))
    curves = [curve for curve in curves if curve.x]
    if not curves:
        return ""
    steps = scale_of([float(step) for curve in curves for step in curve.x], least=0.0)
    scale = score_scale(ends_of_intervals(curves), is_fraction(first))
    how = "Lines are running means of training, points validation with its interval."
    return line_chart(
        f"{metric_name(first)} against meta-steps", "meta-steps", curves, steps, scale, axis_writer(first)
    ) + paragraph(how, "quiet")
