"""The picture of the example: a series as a task, and forecasts of series never seen."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fmaml
from fmaml.config.load import load_config

from .forecast import Window, forecast

SERIES = 4  # in the picture, among them the one that explains a task
GREY, BLUE, ORANGE, GREEN = "0.45", "tab:blue", "tab:orange", "tab:green"


def draw(run: Path, path: Path) -> None:
    """Draw the first test series of a run, with the forecasts at the first query."""
    from matplotlib.figure import Figure  # half a second

    config = load_config(str(run / "config.yaml"))
    settings = {key: value for key, value in config["data"].items() if key != "name"}
    source = forecast(seed=config["seed"], device=torch.device("cpu"), **settings)
    window = Window(*(settings[name] for name in Window._fields))
    learner, task = fmaml.load(run, trust=True), source.sample("test", 0, range(SERIES))
    assert source.data is not None
    logs = source.data["test"]["logs"][:SERIES, -window.years :]  # type: ignore[index]
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    for i, axes in enumerate(figure.subplots(2, 2).flat):
        past = torch.arange(window.years) - window.first_query
        axes.plot(past, (logs[i] - logs[i, window.first_query]).exp(), color="black", linewidth=1.2, label="series")
        unit = float(task.query.x[i, 0, -1].exp())
        x, y = task.support.x[i], task.support.y[i]
        forecasts = {
            "naive": (torch.zeros(window.horizons), GREY),
            "not adapted": (learner.adapt(x, y, steps=0).outputs(task.query.x[i])[0], BLUE),
            "adapted": (learner.adapt(x, y, steps=1).outputs(task.query.x[i])[0], ORANGE),
        }
        for name, (ahead, color) in forecasts.items():
            lines(axes, ahead * unit, color, name)
        axes.axvspan(-window.first_query, 0, color=GREEN, alpha=0.08, label="support set: the past")
        axes.axvspan(0, window.tested, color="tab:red", alpha=0.08, label="query set: the last years")
        axes.set_title(source.about["names"][i].capitalize(), fontsize=10)
        axes.margins(x=0)
    figure.supxlabel("years from the first forecast", fontsize=9)
    figure.supylabel("emission, relative to the first forecast's year", fontsize=9)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=90)


def lines(axes: Any, ahead: Tensor, color: str, label: str) -> None:
    """A forecast from the first query on, in units of its year."""
    values = torch.cat([torch.zeros(1), ahead.detach()]).exp()
    axes.plot(range(len(values)), values, color=color, linewidth=1.6, marker=".", markersize=4, label=label)
