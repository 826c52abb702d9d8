"""Compare trained forecasters with the baselines on their test series: python -m examples.forecast.compare RUN ..

RUN is a folder of `fmaml run`. Runs of the five parts together test every series once. The paired differences are to
the last forecast in the table. Writes forecast.json and forecast.png.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

import fmaml
from fmaml.config.load import load_config
from fmaml.report.paired import paired_difference

from .baselines import VALIDATION, error, errors, fit_baselines
from .forecast import forecast
from .picture import draw

Errors = dict[str, dict[str, Tensor]]  # name of a forecast -> series -> the scaled error at each horizon [horizons]


def add_run(folder: Path, found: Errors, validated: dict[str, list[float]]) -> None:
    """Add the errors of a run's test series: of the baselines, and before and after adaptation."""
    config = load_config(str(folder / "config.yaml"))
    settings = {key: value for key, value in config["data"].items() if key != "name"}
    source = forecast(seed=config["seed"], device=torch.device("cpu"), **settings)
    learner, names = fmaml.load(folder, trust=True), source.about["names"]
    tasks = {"test": source.sample("test", 0, range(len(names))), "val": source.sample("val", 0, range(VALIDATION))}
    by_split = {split: errors(fit_baselines(source.sample), task) for split, task in tasks.items()}
    label = config["algorithm"]["name"].rpartition(":")[2]
    for steps, column in enumerate((f"{label}, not adapted", f"{label}, adapted")):
        for split, (support, query) in tasks.items():
            phis = [learner.adapt(x, y, steps=steps) for x, y in zip(*support, strict=True)]
            predicted = torch.stack([phi.outputs(x) for phi, x in zip(phis, query.x, strict=True)])
            by_split[split][column] = error(tasks[split], predicted)
    for column, values in by_split["test"].items():
        found[column] |= dict(zip(names, values, strict=True))
        validated[column].append(float(by_split["val"][column].mean()))


def rows_of(found: Errors, validated: dict[str, list[float]]) -> list[dict[str, object]]:
    """For each forecast its mean error with an interval, at each horizon, in validation, and the last minus it."""
    means = {
        column: {i: float(series[name].mean()) for i, name in enumerate(sorted(series))}
        for column, series in found.items()
    }
    rows: list[dict[str, object]] = []
    for column, series in found.items():
        own = paired_difference(dict.fromkeys(means[column], 0.0), means[column])
        less = paired_difference(means[column], means[list(means)[-1]])
        ahead = torch.stack([e.double() for e in series.values()]).mean(0).tolist()
        valid = sum(validated[column]) / len(validated[column])
        assert own
        assert less
        print(f"{column:20} {own.mean:.3f} ± {own.ci95:.3f}", "by horizon", *(f"{e:.2f}" for e in ahead), end="  ")
        print(f"the last minus this {less.mean:+.3f} ± {less.ci95:.3f}, validation {valid:.3f}")
        row = {"forecast": column, "series": own.tasks, "mean": own.mean, "ci95": own.ci95, "validation": valid}
        rows.append(row | {"by_horizon": ahead, "last_minus_this": {"mean": less.mean, "ci95": less.ci95}})
    return rows


def main(folders: list[Path]) -> None:
    found: Errors = defaultdict(dict)
    validated: dict[str, list[float]] = defaultdict(list)
    for folder in folders:
        add_run(folder, found, validated)
    rows = rows_of(found, validated)
    Path("forecast.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    draw(folders[-1], Path("forecast.png"))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
