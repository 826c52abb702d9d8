"""The sections of a run's page that need nothing but its folder: results, settings, curves, time, environment."""

import json
import shlex
from typing import Any

from ..config.config_diff import changed_settings, setting_text
from ..config.strict_yaml import dump_yaml
from .charts import Curve, IntervalRow, ends_of_intervals, interval_chart, line_chart, score_scale, smoothed
from .format import minutes_and_seconds
from .html_page import folded, html_table, paragraph, preformatted, section
from .read_run import PastRun
from .scales import Write, plain_number, scale_of, whole_scale

CHANCE_COLOR = 2
REFERENCE_COLORS = (2, 5, 4)  # of what does not depend on the run
COLUMN_COLORS = (0, 1, 3, 4, 5)


def header_section(run: PastRun) -> str:
    """The run's name, what it was, and its main result in large figures."""
    config, results = run.config, run.results or {}
    what = f"{config['algorithm']['name']} on {config['data']['name']}, {results.get('task', '')}"
    parts = [paragraph(what, "lead")]
    if found := run.first_column():
        label, row = found
        steps = len(run.columns[label]) - 1
        after = f"after {steps} inner step{'s' * (steps != 1)}" if steps else "without inner steps"
        parts.append(paragraph(run.write(row["mean"], row["ci95"]), "big"))
        parts.append(paragraph(f"{metric_name(run)} on {results.get('tasks')} unseen tasks {after}: {label}", "quiet"))
    return "\n".join(parts)


def trouble_section(run: PastRun) -> str:
    """A warning where results are not finite."""
    bad = [label for label, rows in run.columns.items() if any(row["mean"] is None for row in rows)]
    said = f"Not finite: {'; '.join(bad)}. The network diverges on test tasks; a smaller algorithm.inner_lr or "
    return section("Diverged", paragraph(f"{said}fewer inner steps may help."), kind="warning") if bad else ""


def metric_name(run: PastRun) -> str:
    """The name of the run's metric."""
    return str((run.results or {}).get("metric", "score"))


def is_fraction(run: PastRun) -> bool:
    """Whether the metric is one that goes from 0 to 1."""
    results = run.results or {}
    return str(results.get("style", "")).endswith("%") or results.get("metric") == "accuracy"


def axis_writer(run: PastRun) -> Write:
    """How the numbers on the axis of the metric are written."""
    return (lambda value: f"{value:.0%}") if is_fraction(run) else plain_number


def results_section(run: PastRun) -> str:
    """The metric on unseen tasks: a chart by inner step, or of intervals where there are none, and the table."""
    columns, results = run.columns, run.results or {}
    title = f"{metric_name(run)} on unseen tasks"
    longest = max(map(len, columns.values()), default=0)
    chart = by_inner_step_chart(run, title) if longest > 1 else one_row_chart(run, title)
    return section(
        "Results",
        chart,
        html_table(
            ["inner steps" if longest > 1 else "", *columns], table_rows(run, longest), range(1, 1 + len(columns))
        ),
        paragraph(str(results.get("protocol", "")), "quiet"),
    )


def table_rows(run: PastRun, rows: int) -> list[list[str]]:
    """The results as texts, a row for each inner step."""
    return [
        [
            str(step) if rows > 1 else "adapted",
            *(
                run.write(column[step]["mean"], column[step]["ci95"]) if step < len(column) else ""
                for column in run.columns.values()
            ),
        ]
        for step in range(rows)
    ]


def by_inner_step_chart(run: PastRun, title: str) -> str:
    """The metric against inner steps, a curve for each column; what takes no steps is a line across."""
    longest = max(map(len, run.columns.values()))
    references = (run.results or {}).get("references", [])
    curves: list[Curve] = []
    for number, (label, column) in enumerate(run.columns.items()):
        flat = len(column) == 1 or label in references
        rows = column * longest if len(column) == 1 else column
        means, halves = [row["mean"] for row in rows], [row["ci95"] for row in rows]
        color = COLUMN_COLORS[number % len(COLUMN_COLORS)]
        if label in references:
            color = REFERENCE_COLORS[references.index(label) % len(REFERENCE_COLORS)]
        kind = "curve dashed" if flat else "dots"
        curves.append(Curve(label, range(len(rows)), means, () if flat else halves, color, kind))
    chance = (run.results or {}).get("chance")
    if chance is not None:
        curves.append(Curve("chance", range(longest), [chance] * longest, (), CHANCE_COLOR, "curve dashed"))
    y = score_scale(ends_of_intervals(curves), is_fraction(run))
    return line_chart(title, "inner steps", curves, whole_scale(longest - 1), y, axis_writer(run))


def one_row_chart(run: PastRun, title: str) -> str:
    """The intervals of an algorithm without inner steps."""
    chance = (run.results or {}).get("chance")
    rows = [
        IntervalRow(
            label,
            column[0]["mean"],
            column[0]["ci95"],
            run.write(column[0]["mean"], column[0]["ci95"]),
            COLUMN_COLORS[number % 5],
        )
        for number, (label, column) in enumerate(run.columns.items())
        if column
    ]
    found = Curve("", range(len(rows)), [row.value for row in rows], [row.half for row in rows])
    ends = ends_of_intervals([found]) + ([] if chance is None else [chance])
    scale = score_scale(ends, is_fraction(run))
    note = "" if chance is None else paragraph("The dashed line is chance.", "quiet")
    return (interval_chart(title, rows, scale, axis_writer(run), chance) + note) if rows else ""


def asked_section(run: PastRun) -> str:
    """What was asked: the settings that differ, and all of them."""
    base, changed = changed_settings(run.config)
    rows = [[change.key, setting_text(change.value), setting_text(change.usual)] for change in changed]
    table = (
        html_table(["setting", "here", "otherwise"], rows) if rows else paragraph("Every setting is as it is there.")
    )
    return section(
        "What was asked",
        paragraph(f"Settings that differ from {base}:"),
        table,
        folded("all settings (config.yaml)", preformatted(dump_yaml(run.config))),
    )


def learning_section(run: PastRun, rows: list[dict[str, Any]]) -> str:
    """The learning curve, and what was skipped."""
    if not any(row.get("kind") in ("train", "val") for row in rows):
        return section("Learning curve", paragraph("There was no training."))
    curves = learning_curves(rows)
    steps = [float(row["step"]) for row in rows]
    ends = ends_of_intervals([curve for curve in curves if curve.kind != "raw"])  # one outlier would flatten the rest
    chart = line_chart(
        f"{metric_name(run)} on query sets against meta-steps",
        f"meta-steps ({metric_name(run)} on the query sets)",
        curves,
        scale_of(steps, least=0.0, most=max(steps)),
        score_scale(ends, is_fraction(run)),
        axis_writer(run),
    )
    skipped = sum(row.get("kind") == "skipped" for row in rows)
    note = f"{skipped} step{'s were' if skipped > 1 else ' was'} skipped, for numbers that were not finite."
    how = "Pale points are single meta-batches, lines running means over a twentieth of them."
    return section("Learning curve", chart, paragraph(how, "quiet"), paragraph(note) if skipped else "")


def learning_curves(rows: list[dict[str, Any]]) -> list[Curve]:
    """Training before and after adaptation, raw and smoothed, and validation; one curve where both are the same."""
    train = [row for row in rows if row.get("kind") == "train"]
    val = [row for row in rows if row.get("kind") == "val"]
    steps = [row["step"] for row in train]
    before, after = ([row.get(key) for row in train] for key in ("before", "after"))
    curves = [Curve("", steps, after, (), 0, "raw"), Curve("training tasks, adapted", steps, smoothed(after), (), 0)]
    if before != after:
        label = "training tasks, not adapted"
        curves = [Curve("", steps, before, (), 2, "raw"), Curve(label, steps, smoothed(before), (), 2), *curves]
    if val:
        y, half = ([row.get(key) for row in val] for key in ("score", "ci95"))
        curves.append(Curve("validation, adapted (95 % interval)", [row["step"] for row in val], y, half, 1, "dots"))
    return curves


def cost_section(run: PastRun, rows: list[dict[str, Any]], memory: dict[str, str]) -> str:
    """Time and memory; ``memory`` is what was measured of it: heading -> text."""
    results = run.results or {}
    speeds = sorted(row["tasks_per_second"] for row in rows if isinstance(row.get("tasks_per_second"), float))
    facts: dict[str, str] = {}
    if isinstance(results.get("training_seconds"), float | int):
        facts["training, with validation"] = f"{minutes_and_seconds(results['training_seconds'])} (minutes:seconds)"
    if speeds:
        facts["tasks a second, the median of the log's"] = f"{speeds[len(speeds) // 2]:.3g}"
    return section("Time and memory", html_table(["", ""], [list(fact) for fact in (facts | memory).items()]))


def environment_section(run: PastRun) -> str:
    """Hardware and versions, and the commands that make the run again."""
    found = run.environment
    facts = {
        key: str(found[key])
        for key in ("device", "hardware", "threads", "system", "python", "fmaml", "commit")
        if key in found
    }
    versions = found.get("versions")
    if isinstance(versions, dict):
        facts["packages"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    again = f"fmaml run {shlex.quote(str(run.folder / 'config.yaml'))}"
    again += f" --device {found['device']}" if "device" in found else ""
    command = found.get("command")
    started = shlex.join(["fmaml", *map(str, command[1:])]) if isinstance(command, list) and command else ""
    return section(
        "Environment, and the command to reproduce",
        html_table(["", ""], [list(fact) for fact in facts.items()]),
        paragraph("This process was started as:") + preformatted(started) if started else "",
        paragraph("The same run again, from the settings in its folder, in a new one:"),
        preformatted(again),
    )


def data_section(run: PastRun) -> str:
    """What results.json says of the data, folded."""
    results = {key: value for key, value in (run.results or {}).items() if key != "results"}
    text = json.dumps(results, indent=2, ensure_ascii=False)
    return section("Data", folded("what results.json says of data and test", preformatted(text))) if results else ""
