"""The sections of a run's page that need only its folder: results, settings, curves, time, environment."""

import json
import shlex
from typing import Any

from ..config.config_diff import changed_settings, setting_text
from ..config.strict_yaml import dump_yaml
from ..files.plain_text import counted, minutes_and_seconds
from ..models.model_card import calibration_facts
from .curves import by_inner_step, learning_curve
from .html_page import folded, html_table, paragraph, preformatted, section
from .page_figure import page_figure
from .read_run import PastRun


def header_section(run: PastRun) -> str:
    """Algorithm, data and task, and the main result in large figures."""
    config, results = run.config, run.results or {}
    subject = f"{config['algorithm']['name']} on {config['data']['name']}, {results.get('task', '')}"
    parts = [paragraph(subject, "lead")]
    if found := run.first_column():
        label, row = found
        steps = len(run.columns[label]) - 1
        after = f"after {counted(steps, 'inner step')}" if steps else "without inner steps"
        parts.append(paragraph(run.metric.write(row["mean"], row["ci95"]), "big"))
        parts.append(paragraph(f"{run.metric.name} on {results.get('tasks')} unseen tasks {after}: {label}", "quiet"))
    return "\n".join(parts)


def trouble_section(run: PastRun) -> str:
    """A warning if results are not finite."""
    bad = [label for label, rows in run.columns.items() if any(row["mean"] is None for row in rows)]
    text = f"Not finite: {'; '.join(bad)}. The network diverges on test tasks; a smaller algorithm.inner_lr or "
    return section("Diverged", paragraph(f"{text}fewer inner steps may help."), kind="warning") if bad else ""


def results_section(run: PastRun) -> str:
    """The metric on unseen tasks, as a chart and as a table."""
    columns, results = run.columns, run.results or {}
    title = f"{run.metric.name} on unseen tasks"
    longest = max(map(len, columns.values()), default=0)
    return section(
        "Results",
        page_figure(by_inner_step(columns, run.metric, title, results.get("chance")), title) if longest else "",
        html_table(
            ["inner steps" if longest > 1 else "", *columns], table_rows(run, longest), range(1, 1 + len(columns))
        ),
        paragraph(str(results.get("protocol", "")), "quiet"),
        *(paragraph(f"{heading}: {text}.") for heading, text in calibration_facts(results.get("calibration")).items()),
    )


def table_rows(run: PastRun, rows: int) -> list[list[str]]:
    """The results as texts, a row for each inner step."""
    return [
        [
            str(step) if rows > 1 else "adapted",
            *(
                run.metric.write(column[step]["mean"], column[step]["ci95"]) if step < len(column) else ""
                for column in run.columns.values()
            ),
        ]
        for step in range(rows)
    ]


def settings_section(run: PastRun) -> str:
    """The settings that differ from the experiment, then all settings."""
    base, changed = changed_settings(run.config)
    rows = [[change.key, setting_text(change.value), setting_text(change.usual)] for change in changed]
    table = html_table(["setting", "here", "otherwise"], rows) if rows else paragraph("None.")
    return section(
        "Settings",
        paragraph(f"Settings that differ from {base}:"),
        table,
        folded("all settings (config.yaml)", preformatted(dump_yaml(run.config))),
    )


def learning_section(run: PastRun, rows: list[dict[str, Any]]) -> str:
    """The learning curve, and the number of skipped steps."""
    if not any(row.get("kind") in ("train", "val") for row in rows):
        return section("Learning curve", paragraph("There was no training."))
    title = f"{run.metric.name} on query sets against meta-steps"
    skipped = sum(row.get("kind") == "skipped" for row in rows)
    note = f"{counted(skipped, 'step')} {'was' if skipped == 1 else 'were'} skipped because of numbers not finite."
    how = "Pale lines are single meta-batches; the other lines are running means over a twentieth of them."
    chart = page_figure(learning_curve(rows, run.metric), title)
    return section("Learning curve", chart, paragraph(how, "quiet"), paragraph(note) if skipped else "")


def cost_section(run: PastRun, rows: list[dict[str, Any]], memory: dict[str, str]) -> str:
    """Time and memory; ``memory`` holds its measurements: heading -> text."""
    results = run.results or {}
    speeds = sorted(row["tasks_per_second"] for row in rows if isinstance(row.get("tasks_per_second"), float))
    facts: dict[str, str] = {}
    if isinstance(results.get("training_seconds"), float | int):
        facts["training, with validation"] = f"{minutes_and_seconds(results['training_seconds'])} (minutes:seconds)"
    if speeds:
        facts["tasks a second (median)"] = f"{speeds[len(speeds) // 2]:.3g}"
    return section("Time and memory", html_table(["", ""], [list(fact) for fact in (facts | memory).items()]))


def environment_section(run: PastRun) -> str:
    """Hardware, versions, and the commands to repeat the run."""
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
        paragraph("The command of this process:") + preformatted(started) if started else "",
        paragraph("The command to repeat the run in a new folder, from the saved settings:"),
        preformatted(again),
    )


def data_section(run: PastRun) -> str:
    """The facts about the data in results.json, folded."""
    results = {key: value for key, value in (run.results or {}).items() if key != "results"}
    text = json.dumps(results, indent=2, ensure_ascii=False)
    return section("Data", folded("data and test, from results.json", preformatted(text))) if results else ""
