"""Check the header of every experiment and example against `benchmarks/results/`: python benchmarks/headers.py.

A header may say "not measured". Otherwise these rules hold:

- Each `mean +- interval`, except the published one, is in a result file of the experiment, or of one in backquotes. It
  is compared at the header's decimals.
- A result file of the experiment has the header's commit and its first time.
- The settings of that run are the experiment's, or are in the header.
- A figure without a result file says so beside its commit.

Figures without an interval and further times are not checked.
"""

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmaml.config.config_diff import differences_from, setting_text
from fmaml.config.load import load_config

TOP = Path(__file__).resolve().parent.parent
RESULTS = TOP / "benchmarks" / "results"
FIELDS = ("command", "published", "ours", "hardware", "time", "commit")
NO_FILE = "before result files were kept"  # stands in the commit of a figure without a result file
FIGURE = re.compile(r"(-?\d+(?:\.\d+)?) \+- (\d+(?:\.\d+)?)")
FREE = {
    "name",
    "data.root",
    "data.download",
    "train.compile",
    "train.save_every",
    "train.log_every",
}  # these do not change the trained model
CLOCK = re.compile(r"\b(?:(\d+):)?(\d+):(\d\d)\b")


def header(path: Path) -> dict[str, str]:
    """The fields of the comment at the top of an experiment, without the text below the last field."""
    fields: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if begins := re.match(r"# (\w+) {2,}(.*)", line):
            name, text = begins.groups()
            fields[name] = text
        elif name and re.match(r"# {5,}", line):
            fields[name] += " " + line[1:].strip()
        elif name != "ours" or line != "#":  # a table within `ours` has an empty line above it
            name = ""
    return fields


def comment(path: Path) -> str:
    """The whole comment at the top of an experiment, as one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(" ".join(line.lstrip("#") for line in lines).split())


def unsaid(path: Path, run: dict[str, Any]) -> Iterator[str]:
    """The settings of a run that are neither in the experiment nor in its header."""
    command = run["environment"].get("command", [])
    trained = run.get("config")
    if trained is None and command[:2] == ["fmaml", "run"]:
        own = path.stem == command[2]  # by its name in the package, which it may have left for `examples/`
        trained = load_config(str(path) if own else command[2], [word for word in command[3:] if "=" in word])
    if trained is not None:
        for key, value, usual in differences_from(load_config(str(path)), trained):
            named = re.search(rf"\b{re.escape(f'{key}={setting_text(value)}')}(?![\w.]*\w)", comment(path))
            moved = key.endswith(".name") and str(usual).endswith(f":{value}")
            if key not in FREE and not named and not moved:
                yield f"{key}: {setting_text(usual)}, but it was measured with {setting_text(value)}"


def measured(path: Path) -> list[dict[str, Any]]:
    """The runs of an experiment in the result files."""
    name = path.stem
    files = [file for file in RESULTS.rglob(f"{name}*.json") if re.fullmatch(rf"{name}(_sample)?_[a-z0-9]+", file.stem)]
    runs = [run for file in files for run in _runs(json.loads(file.read_text(encoding="utf-8")))]
    if path.parent.name == "algorithms":
        every = json.loads((RESULTS / "algorithms_cpu.json").read_text(encoding="utf-8"))["runs"]
        runs += [run for run in every if run["algorithm"] == name]
    return runs


def _runs(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in a file, each with the shared environment."""
    shared = {"environment": content.get("environment", {})}
    return [shared | run for run in content["runs"]] if "runs" in content else [content]


def found(node: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key)
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from found(value, key)


def pairs(node: Any) -> Iterator[tuple[float, float]]:
    """All means with intervals, at any depth."""
    if isinstance(node, dict) and node.get("ci95") is not None and "mean" in node:
        yield node["mean"], node["ci95"]
    if isinstance(node, dict | list):
        for value in node.values() if isinstance(node, dict) else node:
            yield from pairs(value)


def is_measured(mean: str, interval: str, values: list[tuple[float, float]]) -> bool:
    """Whether a figure is one of the values, as a number or in per cent, at the figure's decimals."""
    half_unit = [0.5001 * 10.0 ** -len(text.partition(".")[2]) for text in (mean, interval)]
    return any(
        abs(scale * value - float(mean)) <= half_unit[0] and abs(scale * ci95 - float(interval)) <= half_unit[1]
        for value, ci95 in values
        for scale in (1, 100)
    )


def seconds(clock: re.Match[str]) -> int:
    hours, minutes, rest = (int(part or 0) for part in clock.groups())
    return 3600 * hours + 60 * minutes + rest


def faults(path: Path) -> list[str]:
    """The parts of an experiment's header that are not in the result files."""
    fields = header(path)
    missing = [f"no {name}" for name in FIELDS if name not in fields]
    if missing:
        return missing
    figures = FIGURE.findall(fields["ours"])
    if not figures:
        return [] if "not measured" in fields["ours"] else ["`ours` has no figure and does not say: not measured"]
    runs = measured(path)
    if not runs:
        return [] if NO_FILE in fields["commit"] else ["no result file"]
    text = comment(path)
    beside = [
        path.parent / f"{name}.yaml" for name in re.findall(r"`(?:benchmarks/results/)?(\w+?)(?:_cpu\.json)?`", text)
    ]
    values = list(pairs([runs, *map(measured, beside)]))
    claimed = FIGURE.findall(text.replace(" ".join(fields["published"].split()), "", 1))
    wrong = [f"{mean} +- {ci95}: in no result file" for mean, ci95 in claimed if not is_measured(mean, ci95, values)]
    commits = [str(commit) for commit in found(runs, "commit")]
    commit = fields["commit"].split()[0].strip(",;")
    if not any(one.startswith(commit[:7]) for one in commits):
        wrong.append(f"commit {commit}: the result files have {', '.join(commits)}")
    wrong += itertools.chain(
        *(unsaid(path, run) for run in runs if run["environment"]["commit"].startswith(commit[:7]))
    )
    times = [float(value) for value in found(runs, "training_seconds")]
    clock = CLOCK.search(fields["time"])
    if clock and times and not any(abs(seconds(clock) - time) <= 1 for time in times):
        wrong.append(f"time {clock[0]}: the result files have {', '.join(f'{time:.0f} s' for time in times)}")
    return wrong


def main() -> int:
    paths = [path for folder in ("experiments", "examples") for path in sorted((TOP / folder).rglob("*.yaml"))]
    wrong = {path: faults(path) for path in paths}
    for path, lines in wrong.items():
        for line in lines:
            print(f"{path.relative_to(TOP)}: {line}")
    print(f"{len(wrong)} headers, {sum(map(bool, wrong.values()))} of them not as measured")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
