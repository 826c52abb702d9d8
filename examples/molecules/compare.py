"""Test a network with 16 to 128 molecules: python -m examples.molecules.compare RUN [PUBLISHED]

RUN is a folder of `fmaml run`, PUBLISHED the folder baselines of FS-Mol. "Lead" is the network's gain minus this one,
paired by assay. Writes molecules.json and molecules.png.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fmaml
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.report.paired import paired_difference

from .molecules import precision_gain
from .published import Gains, published_gains

SIZES, DRAWS, AT_ONCE = (16, 32, 64, 128), 2, 16  # of support sets; support sets of each assay; tasks in memory
OURS = "our prototypes"


def own_gains(run: Path, shots: int) -> Gains:
    """Of the network, and of prototypes of its inputs, the means over DRAWS support sets of each test assay."""
    config = load_config(str(run / "config.yaml"))
    config["data"]["shots"] = shots
    source, model, _, algorithm, _, _ = build(config, torch.device("cpu"))
    assert source.references is not None
    names, theta = source.about["names"], fmaml.load(run, trust=True).theta
    found: dict[str, list[Tensor]] = {"untrained prototypes": [], OURS: []}
    for first in range(0, DRAWS * len(names), AT_ONCE):
        tasks = range(first, min(first + AT_ONCE, DRAWS * len(names)))
        found["untrained prototypes"].append(source.references("test", 0, tasks)["untrained prototypes"])
        task, metric = source.sample("test", 0, tasks), fmaml.transductive(model.apply, precision_gain)
        found[OURS].append(fmaml.evaluate(algorithm, metric, theta, task)[:, -1])
    means = {name: torch.cat(parts).view(DRAWS, -1).mean(0).tolist() for name, parts in found.items()}
    return {name: dict(zip(names, values, strict=True)) for name, values in means.items()}


def rows_of(found: Gains, shots: int) -> list[dict[str, Any]]:
    """For each name its mean gain with an interval, and the network's lead."""
    rows = []
    for name, gains in found.items():
        shared = {assay: gain for assay, gain in gains.items() if assay in found[OURS]}
        numbers = {assay: i for i, assay in enumerate(shared)}
        theirs = {numbers[assay]: gain for assay, gain in shared.items()}
        own = paired_difference(dict.fromkeys(theirs, 0.0), theirs)
        lead = paired_difference(theirs, {numbers[assay]: found[OURS][assay] for assay in shared})
        assert own
        assert lead
        rows.append({"shots": shots, "assays": own.tasks, "name": name, "mean": own.mean, "ci95": own.ci95})
        rows[-1]["lead"] = {"mean": lead.mean, "ci95": lead.ci95}
        print(f"{shots:3} {name:22} {own.mean:.3f} ± {own.ci95:.3f}  lead {lead.mean:+.3f} ± {lead.ci95:.3f}")
    return rows


def main(run: Path, published: Path | None = None) -> None:
    rows: list[dict[str, Any]] = []
    for shots in SIZES:
        found = own_gains(run, shots)
        rows += rows_of((published_gains(published, shots) if published else {}) | found, shots)
        Path("molecules.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    from .picture import draw

    draw(run, rows, Path("molecules.png"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
