"""The page of `fmaml compare`: its output as HTML, with the curves of all runs."""

from .compare import NOTE, Comparison, aligned_columns, result_rows, verdicts
from .curves import by_inner_step, learning_curves
from .html_page import document, escape, html_table, paragraph, section
from .page_figure import page_figure
from .read_run import ReportedMetric


def comparison_page(comparison: Comparison) -> str:
    """The whole page."""
    names = [compared.name for compared in comparison.runs]
    metrics = dict.fromkeys(compared.run.metric for compared in comparison.runs if compared.run.results)
    charts = [chart for metric in metrics for chart in charts_of(comparison, metric)]
    unfinished = [compared.name for compared in comparison.runs if compared.run.results is None]
    outcomes = "".join(f"<li>{escape(line)}</li>" for line in verdicts(comparison))
    return document(
        f"fmaml compare: {', '.join(names)}",
        f"<h1>{len(names)} runs compared</h1>{paragraph(', '.join(names), 'lead')}",
        section(
            "Results",
            *charts,
            grid(names, result_rows(comparison), numbers=True),
            paragraph(f"No results yet: {', '.join(unfinished)}") if unfinished else "",
        ),
        section("Paired tests", f"<ul>{outcomes}</ul>", paragraph(NOTE, "quiet")) if outcomes else "",
        section("Settings that differ", grid(names, list(comparison.settings.items())) or paragraph("None.")),
        section("Learning curves", learning_chart(comparison)),
    )


def grid(names: list[str], rows: list[tuple[str, list[str]]], numbers: bool = False) -> str:
    """A table with a column for each run; "" without rows."""
    columns = range(1, 1 + len(names)) if numbers else ()
    return html_table(["", *names], [[heading, *cells] for heading, cells in rows], columns) if rows else ""


def charts_of(comparison: Comparison, metric: ReportedMetric) -> list[str]:
    """One chart for each column of results, with all runs of this metric."""
    runs = {compared.name: compared.run for compared in comparison.runs}
    columns = {name: aligned_columns(run) if run.metric == metric else {} for name, run in runs.items()}
    charts: list[str] = []
    for label in dict.fromkeys(label for own in columns.values() for label in own):
        title = f"{metric.name} on unseen tasks: {label}"
        drawn = by_inner_step({name: own.get(label, []) for name, own in columns.items()}, metric, title, None)
        charts.append(f"<h3>{escape(title)}</h3>\n{page_figure(drawn, title)}")
    return charts


def learning_chart(comparison: Comparison) -> str:
    """The learning curves of all runs with the first run's metric; "" if none was trained."""
    metric = comparison.runs[0].run.metric
    pairs = zip(comparison.runs, comparison.rows, strict=True)
    runs = {compared.name: rows if compared.run.metric == metric else [] for compared, rows in pairs}
    if not any(runs.values()):
        return ""
    how = "Lines are running means of training, points validation with its interval."
    chart = page_figure(learning_curves(runs, metric), f"{metric.name} against meta-steps")
    return chart + paragraph(how, "quiet")
