"""The picture of the example: an assay ranked by the network, and the gains by the size of the support set."""

from pathlib import Path
from typing import Any

import torch

import fmaml
from fmaml.config.load import load_config

from .molecules import molecules, precision_gain


def draw(run: Path, rows: list[dict[str, Any]], path: Path) -> None:
    """Draw an assay's queries, best score first, on the left, and the gains of ``rows`` on the right."""
    from matplotlib.figure import Figure  # half a second

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    draw_assay(left, run)
    for name in dict.fromkeys(row["name"] for row in rows):
        own, ours = [row for row in rows if row["name"] == name], name == rows[-1]["name"]
        style = {"linewidth": 2.4, "color": "black"} if ours else {"linewidth": 1}
        right.plot([row["shots"] for row in own], [row["mean"] for row in own], "o-", label=name, **style)
    right.set_xscale("log", base=2)
    ticks = sorted({row["shots"] for row in rows})
    right.set_xticks(ticks, [str(shots) for shots in ticks])
    right.set(xlabel="molecules in the support set", ylabel="average precision over base rate")
    right.legend(fontsize=8, loc="upper left")
    right.set_ylim(top=1.35 * right.get_ylim()[1])
    figure.savefig(path, dpi=80)


def draw_assay(axes: Any, run: Path) -> None:
    """The first test assay: how many of the k best-scored queries are active."""
    config = load_config(str(run / "config.yaml"))
    settings = {key: value for key, value in config["data"].items() if key != "name"}
    source = molecules(seed=config["seed"], device=torch.device("cpu"), **settings)
    (known, labels), (asked, y) = source.sample("test", 0, range(1))
    asked, y = asked[0, y[0] >= 0], y[0, y[0] >= 0]
    logits = fmaml.load(run, trust=True).adapt(known[0], labels[0]).outputs(asked)
    hits = y[(logits[:, 1] - logits[:, 0]).argsort(descending=True)].double()
    ranks, base = torch.arange(1, len(hits) + 1), float(hits.mean())
    axes.plot(ranks, hits.cumsum(0) / ranks, color="tab:orange", label="active among the k best")
    axes.axhline(base, color="0.5", linestyle="--", label="base rate: in random order")
    gain = float(precision_gain(logits, y))
    axes.vlines(ranks[hits > 0], -0.06, -0.02, color="black", linewidth=0.5, label="active molecules")
    name, shots = source.about["names"][0], len(labels[0])
    axes.set_title(f"{name}: {int(labels.sum())} of {shots} known molecules active, gain {gain:.2f}", fontsize=9)
    axes.set(xlabel="rank k of the molecules not known", ylabel="share of active ones", ylim=(-0.08, 1.05))
    axes.legend(fontsize=8)
