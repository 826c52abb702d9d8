"""Compare a trained network with the baselines, by the number of ratings: python -m examples.ratings.compare RUN

RUN is a folder of `fmaml run`. "Lead" is the error of the adapted network minus this one, paired by the test users.
Writes ratings.json and ratings.png.
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

from .picture import draw
from .ratings import squared_error

SHOTS = (5, 10, 20)
Errors = dict[str, Tensor]  # name -> the squared error of each test user


def test_errors(run: Path, shots: int) -> Errors:
    """The errors of the baselines, and of the network before and after adaptation to so many ratings."""
    config = load_config(str(run / "config.yaml"))
    config["data"]["shots"] = shots
    source, model, _, algorithm, _, _ = build(config, torch.device("cpu"))
    assert source.data is not None
    assert source.references is not None
    users = range(len(source.data["test"]["counts"]))  # type: ignore[index]
    found, task = source.references("test", 0, users), source.sample("test", 0, users)
    metric = fmaml.transductive(model.apply, squared_error)
    errors = fmaml.evaluate(algorithm, metric, fmaml.load(run, trust=True).theta, task).double()
    return found | {"network, not adapted": errors[:, 0], "network, adapted": errors[:, -1]}


def rows_of(found: Errors, shots: int) -> list[dict[str, Any]]:
    """For each name its mean error with an interval, and the lead of the adapted network."""
    by_user = {name: dict(enumerate(errors.tolist())) for name, errors in found.items()}
    rows: list[dict[str, Any]] = []
    for name, errors in by_user.items():
        own = paired_difference(dict.fromkeys(errors, 0.0), errors)
        lead = paired_difference(errors, by_user["network, adapted"])
        assert own
        assert lead
        row = {"shots": shots, "users": own.tasks, "name": name, "mean": own.mean, "ci95": own.ci95}
        rows.append(row | {"lead": {"mean": lead.mean, "ci95": lead.ci95}})
        print(f"{shots:2} ratings  {name:22} {own.mean:.3f} ± {own.ci95:.3f}  lead {lead.mean:+.4f} ± {lead.ci95:.4f}")
    return rows


def main(run: Path) -> None:
    rows = [row for shots in SHOTS for row in rows_of(test_errors(run, shots), shots)]
    Path("ratings.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    draw(run, rows, Path("ratings.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
