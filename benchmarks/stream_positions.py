"""Bits a byte by position in a stream, of trained models: a table, and the picture docs/streams.png.

    python benchmarks/stream_positions.py [--json OUT] [--picture PNG] --run NAME=RUN [NAME=RUN ..]

The first run gives the streams: the tasks of its test, with chunks of one passage. Runs with ``algorithm.chunks`` above
0 predict each chunk, then learn it; their scores are those of their own tests, on the same tasks. Other runs only
predict; the bytes before a chunk are its context, as far as their ``data.length`` allows. Differences from the first
run are task by task; intervals are 95 % over tasks.
"""

import json
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from measure import Bench
from torch import Tensor
from torch.func import vmap

import fmaml
from fmaml.config.build import call_by_name
from fmaml.files.figures import save_figure
from fmaml.models.learner import Learner
from fmaml.report.paired import paired_difference

TOP = Path(__file__).parent.parent
AT_ONCE = 20  # streams in memory
SHOWN = (0, 1, 3, 7, 15)  # positions in the printed table


def main() -> None:
    """Measure each run on the same streams, then draw the picture."""
    runs: dict[str, Any] = {"nargs": "+", "metavar": "NAME=RUN", "action": "extend"}
    picture = {"type": Path, "default": TOP / "docs" / "streams.png"}
    bench = Bench(__doc__, seconds=3600, picture=picture, run=runs)
    folders = {name: Path(run) for name, _, run in (pair.partition("=") for pair in bench.args.run)}
    learners = {name: fmaml.load(folder) for name, folder in folders.items()}
    streams = test_streams(next(iter(learners.values())))
    scores = {name: by_position(folders[name], learner, streams) for name, learner in learners.items()}
    first = next(iter(scores.values()))
    for name, own in scores.items():
        positions = [summary(column) for column in own.T]
        row = {
            "run": name,
            "trained": trained(learners[name]),
            "bits_per_byte": positions,
            "whole": summary(own.mean(1)),
        }
        if own is not first:
            more = own - first
            row |= {"more_than_first": [summary(column) for column in more.T], "whole_more": summary(more.mean(1))}
        cells = {str(k + 1): f"{positions[k]['mean']:.3f} ± {positions[k]['ci95']:.3f}" for k in SHOWN}
        bench.add(row, case=name, **cells)
    draw(bench.result["rows"], streams.query.x.shape[-1], bench.args.picture)


def trained(learner: Learner) -> dict[str, Any]:
    """The settings of a training that differ between the runs."""
    config = learner.metadata["config"]
    own = {
        "meta_steps": config["train"]["meta_steps"],
        "lr": config["optimizer"]["lr"],
        "clip": config["train"]["clip"],
    }
    return own | {
        "from_a_model": config["train"].get("start") is not None,
        **{key: config[key] for key in ("data", "algorithm")},
    }


def test_streams(learner: Learner) -> fmaml.Task:
    """The test tasks of the run of this model."""
    config = learner.metadata["config"]
    source = call_by_name("data", config["data"], seed=config["seed"], device=torch.device("cpu"))
    return source.sample("test", 0, range(config["eval"]["tasks"]))


def by_position(run: Path, learner: Learner, streams: fmaml.Task) -> Tensor:
    """Bits a byte [tasks, chunks + 1] of each chunk of each stream; of a run that learns, those of its own test."""
    if learner.metadata["config"]["algorithm"]["chunks"]:
        rows = map(json.loads, (run / "scores.jsonl").read_text(encoding="utf-8").splitlines())
        return torch.tensor([scores for row in rows for scores in row.get("scores", [])])
    network, theta = learner.for_outputs(learner.blueprint.outputs)
    x, y = (torch.cat([getattr(part, axis) for part in streams], 1) for axis in "xy")  # [tasks, chunks + 1, length]
    held = learner.blueprint.inputs[0] // x.shape[-1]  # chunks in the context
    windows = [
        read(network.model.apply, theta, x[:, k : k + held], y[:, k : k + held]) for k in range(x.shape[1] - held + 1)
    ]
    return torch.cat([windows[0], *(window[:, -1:] for window in windows[1:])], 1)


@torch.no_grad()
def read(apply: Any, theta: Any, x: Tensor, y: Tensor) -> Tensor:
    """Bits a byte [tasks, chunks] of chunks that are read as one passage; x and y int64 [tasks, chunks, length]."""
    logits = (apply(theta, part.flatten(1)).view(*part.shape, -1) for part in x.split(AT_ONCE))
    return torch.cat([vmap(vmap(fmaml.bits))(*pair) for pair in zip(logits, y.split(AT_ONCE), strict=True)])


def summary(column: Tensor) -> dict[str, float | None]:
    """The mean over tasks, and half its 95 % interval."""
    found = paired_difference(dict.fromkeys(range(len(column)), 0.0), dict(enumerate(column.tolist())))
    assert found
    return {"mean": found.mean, "ci95": found.ci95}


def draw(rows: list[dict[str, Any]], length: int, path: Path) -> None:
    """Draw the bits a byte against the bytes read."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    read = [length * k for k in range(len(rows[0]["bits_per_byte"]))]
    for row in rows:
        mean, ci95 = ([entry[key] for entry in row["bits_per_byte"]] for key in ("mean", "ci95"))
        (line,) = axis.plot(read, mean, marker="o", markersize=3, label=row["run"])
        low, high = ([m + sign * c for m, c in zip(mean, ci95, strict=True)] for sign in (-1, 1))
        axis.fill_between(read, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(xlabel="bytes of an unseen language read before", ylabel="bits a byte of the next chunk")
    axis.set_xticks(read[:: max(1, len(read) // 8)])
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
