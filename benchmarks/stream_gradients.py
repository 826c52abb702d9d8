"""Meta-gradients of single streams at a trained model, to first and to second order: their size and agreement.

    python benchmarks/stream_gradients.py --run RUN [--json OUT]

The streams are new ones of the run's training languages. "spread" is the root of the gradients' total variance over
streams. A step's gradient is a mean over a few streams, so a few large gradients decide its direction.
"""

from pathlib import Path
from typing import Any

import torch
from measure import Bench
from torch import Tensor
from torch.nn.functional import cosine_similarity

import fmaml
from fmaml.config.build import call_by_name
from fmaml.models.learner import Learner
from fmaml.tree import leaves, map_leaves

RATES = (0.2, 0.1)
STREAMS, NEW = 20, 10_000_000  # streams of a training step that no training has reached


def main() -> None:
    """Measure each inner rate."""
    bench = Bench(__doc__, seconds=1800, run={"type": Path, "required": True, "help": "the folder of a run"})
    torch.set_num_threads(1)
    learner, streams = fmaml.load(bench.args.run), 2 if bench.quick else STREAMS
    for rate in RATES:
        second, first = (gradients(learner, rate, streams, order) for order in (False, True))
        agree = {
            "cosine_of_a_stream": float(cosine_similarity(second, first).median()),
            "cosine_of_means": float(cosine_similarity(second.mean(0), first.mean(0), 0)),
        }
        for order, found in (("second order", second), ("first order", first)):
            row: dict[str, Any] = {"inner_lr": rate, "order": order, "norms": found.norm(dim=1).tolist(), **agree}
            row |= {"norm_of_mean": float(found.mean(0).norm()), "spread": float(found.var(0).sum().sqrt())}
            middle, largest = float(torch.tensor(row["norms"]).median()), max(row["norms"])
            cells = {"median": f"{middle:.2f}", "largest": f"{largest:.2f}", "spread": f"{row['spread']:.2f}"}
            bench.add(row, case=f"{order}, {rate}", **cells, **{name: f"{value:.2f}" for name, value in agree.items()})


def gradients(learner: Learner, rate: float, streams: int, first_order: bool) -> Tensor:
    """The meta-gradient of each stream by itself, [streams, parameters]."""
    config = learner.metadata["config"]
    source = call_by_name("data", config["data"], seed=config["seed"], device=torch.device("cpu"))
    tasks = source.sample("train", NEW, range(streams))
    network, theta = learner.for_outputs(learner.blueprint.outputs)
    loss_fn, chunks = fmaml.supervised(network.model.apply, fmaml.cross_entropy), config["algorithm"]["chunks"]
    algorithm = fmaml.streamed(loss_fn, inner_lr=rate, chunks=chunks, first_order=first_order, remat=False)
    found = [fmaml.meta_grad(algorithm, theta, one(tasks, i))[0] for i in range(streams)]
    return torch.stack([torch.cat([grad.flatten() for grad in leaves(grads)]) for grads in found])


def one(tasks: fmaml.Task, i: int) -> fmaml.Task:
    """Task i alone."""
    return map_leaves(lambda x: x[i : i + 1], tasks)


if __name__ == "__main__":
    main()
