"""Compare the time to sample tasks from each source with the time of a meta-step.

    python benchmarks/sampling.py [--device cpu] [--json OUT]

Each source has the network, algorithm and meta-batch of its experiment. Sampling and step are timed in turn; each time
another meta-batch is sampled. A source with files is measured if they exist (FMAML_DATA), and never downloaded.
"""

import statistics
from itertools import count

from measure import Bench, ratio, shown

import fmaml
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.errors import Error
from fmaml.training.run_experiment import initial_params

SOURCES = {  # name -> the experiment and its overrides
    "sinusoid": ["sinusoid"],
    "markov": ["markov"],
    "udhr": ["languages", "data.download=false"],
    "glyphs": ["omniglot", "data.name=glyphs"],
    "omniglot": ["omniglot", "data.download=false"],
}


def main() -> None:
    bench = Bench(__doc__, seconds=90)
    for name in list(SOURCES)[: 1 if bench.quick else None]:
        if bench.left() < 0:
            bench.leave_out({"source": name}, name, "no time left")
            continue
        try:
            measure(bench, name)
        except Error:
            bench.leave_out({"source": name}, name, "its files are missing; FMAML_DATA names their folder")


def measure(bench: Bench, name: str) -> None:
    experiment, *changes = SOURCES[name]
    config = load_config(experiment, changes)
    meta_batch = config["train"]["meta_batch"]
    built = build(config, bench.device)
    state = fmaml.init_state(built.algorithm, built.optimizer, initial_params(built, 0, bench.device))
    tasks, steps = built.source.sample("train", 0, range(meta_batch)), count(1)
    runs = {
        "sampling": lambda: built.source.sample("train", next(steps), range(meta_batch)),
        "step": lambda: fmaml.meta_step(built.algorithm, built.optimizer, state, tasks),
    }
    seconds = bench.time(runs, seconds=8, least=5, most=300)
    bench.add(
        {"source": name, "experiment": [experiment, *changes], "meta_batch": meta_batch, "seconds": seconds},
        case=f"{name}, {meta_batch} tasks",
        sampling=shown(seconds["sampling"]),
        step=shown(seconds["step"]),
        sampled=f"{meta_batch / statistics.median(seconds['sampling']):,.0f} tasks/s",
        stepped=f"{meta_batch / statistics.median(seconds['step']):,.0f} tasks/s",
        share=f"{ratio(seconds['sampling'], seconds['step']):.2%}",
    )


if __name__ == "__main__":
    main()
