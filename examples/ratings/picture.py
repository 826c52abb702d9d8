"""The picture of the example: a user as a task, and the errors by the number of ratings."""

from pathlib import Path
from typing import Any

import torch

import fmaml
from fmaml.config.load import load_config

from .ratings import Users, films_of, ratings, sample_tasks

USER, SHOTS, QUERIES = 4, 10, 10  # the test user in the picture, and the ratings
COLORS = {"item mean": "0.6", "shrunk bias": "tab:blue", "factorisation": "tab:green", "network, adapted": "tab:orange"}


def draw(run: Path, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw a test user's films with predictions on the left, and the errors of ``rows`` on the right."""
    from matplotlib.figure import Figure  # half a second

    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    draw_user(left, run)
    for name, color in COLORS.items():
        own = [row for row in rows if row["name"] == name]
        right.plot([row["shots"] for row in own], [row["mean"] for row in own], "o-", color=color, label=name)
    right.set(xlabel="ratings of the new user", ylabel="squared error of the user's other ratings", xticks=[5, 10, 20])
    right.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def draw_user(axes: Any, run: Path) -> None:
    """The films of the support set above, and some of the query set below, with stars given and predicted."""
    config = load_config(str(run / "config.yaml"))
    settings: dict[str, Any] = {key: value for key, value in config["data"].items() if key != "name"}
    settings["shots"] = SHOTS
    seed, cpu = config["seed"], torch.device("cpu")
    source, learner = ratings(seed=seed, device=cpu, **settings), fmaml.load(run, trust=True)
    assert source.data is not None
    splits = {split: Users(**own) for split, own in source.data.items()}  # type: ignore[arg-type]
    which = range(USER, USER + 1)
    numbers, _ = sample_tasks(splits, SHOTS, (1, 1, 1), seed, "test", 0, which)
    task = source.sample("test", 0, which)
    x, stars = (torch.cat([part[0] for part in parts])[: SHOTS + QUERIES] for parts in zip(*task, strict=True))
    titles = films_of(Path(settings["root"]).expanduser()) if settings["root"] else {}
    films = torch.cat([part.x[0] for part in numbers])[: SHOTS + QUERIES].tolist()
    names = [titles[film][0] if titles else f"film {film}" for film in films]
    rows = range(len(films))
    axes.axhspan(-0.5, SHOTS - 0.5, color="tab:green", alpha=0.1)
    axes.text(0.6, -0.7, "support set: the ratings given", fontsize=8)
    axes.text(0.6, SHOTS - 0.1, "query set: some of the other ratings", fontsize=8, va="center")
    axes.plot(stars[:, 0], rows, "k*", label="the user's stars")
    for steps, color, label in ((0, "0.6", "predicted before"), (None, "tab:orange", "predicted after adaptation")):
        given, wanted = task.support.x[0], task.support.y[0]
        predicted = learner.adapt(given, wanted, steps=steps).outputs(x[SHOTS:])[:, 0]
        axes.plot(predicted, rows[SHOTS:], "o", color=color, markersize=5, label=label)
    axes.set_yticks(rows, [name if len(name) < 40 else f"{name[:38]}.." for name in names], fontsize=7)
    axes.set(xlim=(0.5, 5.5), ylim=(SHOTS + QUERIES - 0.5, -1.8), title="stars")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
