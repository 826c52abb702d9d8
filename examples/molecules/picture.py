"""The picture of the example: an assay ranked by the network, and the gains by the size of the support set."""

from pathlib import Path
from typing import Any

import torch

import fmaml
from fmaml.config.load import load_config

from .molecules import molecules, precision_gain

ASSAYS = 15


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
    """How many of the k best-scored queries are active, in the assay of median gain among the first ASSAYS."""
    config = load_config(str(run / "config.yaml"))
    settings: dict[str, Any] = {key: value for key, value in config["data"].items() if key != "name"}
    source = molecules(seed=config["seed"], device=torch.device("cpu"), **settings)
    (known, labels), (asked, truth) = source.sample("test", 0, range(ASSAYS))
    learner = fmaml.load(run, trust=True)
    scored = [learner.adapt(x, y).outputs(queries) for x, y, queries in zip(known, labels, asked, strict=True)]
    gains = [float(precision_gain(logits, y)) for logits, y in zip(scored, truth, strict=True)]
    chosen = sorted(range(ASSAYS), key=lambda i: gains[i])[ASSAYS // 2]
    logits, y = (part[chosen][truth[chosen] >= 0] for part in (torch.stack(scored), truth))
    hits = y[(logits[:, 1] - logits[:, 0]).argsort(descending=True)].double()
    ranks, base = torch.arange(1, len(hits) + 1), float(hits.mean())
    axes.plot(ranks, hits.cumsum(0) / ranks, color="tab:orange", label="active among the k best")
    axes.axhline(base, color="0.5", linestyle="--", label="base rate: in random order")
    axes.vlines(ranks[hits > 0], -0.06, -0.02, color="black", linewidth=0.5, label="active molecules")
    name, active = source.about["names"][chosen], int(labels[chosen].sum())
    title = f"{name}: {active} of {labels.shape[1]} known molecules active, gain {gains[chosen]:.2f}"
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="rank k of the molecules not known", ylabel="share of active ones", ylim=(-0.08, 1.05))
    axes.legend(fontsize=8)
