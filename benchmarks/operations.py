"""Count the operations of a meta-step, their arithmetic and their memory.

    python benchmarks/operations.py [--write]

The counts are the operations that torch launches, the floating-point operations in products, and the peak bytes. They
do not depend on the machine or its load. Each network has one step with 4 tasks and 1 inner step, Adam outside. conv4
also has a step with 5 inner steps, kept and recomputed. ``--write`` writes results/operations.json. CI compares every
change with that file, and fails if a count grows by 5 %.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from counted import peak_bytes
from networks import PROBLEMS, Problem, problem
from torch import nn

import fmaml
from fmaml.training.compiled import with_work

FILE = Path(__file__).parent / "results" / "operations.json"
TASKS = 4
CPU = torch.device("cpu")
Counts = dict[str, int]


def counts_of(step: Callable[[], Any]) -> Counts:
    """The counts of one call, after a first call that may fill caches."""
    step()
    _, work = with_work(step)
    return {"operations": work.operations, "flop": work.flop, "peak_bytes": peak_bytes(step)}


def measured() -> dict[str, Counts]:
    """The counts of every case."""
    cases = {name: make(CPU) for name, make in PROBLEMS.items()} | {"conv4 by from_module": by_module()}
    found = {name: counts_of(case.step(case.maml(1), case.tasks(TASKS))) for name, case in cases.items()}
    conv4 = cases["conv4 28x28x1"]
    for name, remat in (("kept", False), ("recomputed", True)):
        step = conv4.step(conv4.maml(5, remat=remat), conv4.tasks(TASKS))
        found[f"conv4 28x28x1, 5 steps {name}"] = counts_of(step)
    return found


def by_module() -> Problem:
    """The layers of conv4 28x28x1 as a torch module."""
    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        norm = nn.BatchNorm2d(64, track_running_stats=False)
        layers += [nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False), norm, nn.ReLU()]
    torch.manual_seed(0)
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5))
    like = PROBLEMS["conv4 28x28x1"](CPU)
    return problem(fmaml.from_module(module), like.criterion, like.inner_lr, CPU, like.tasks)


def grown(now: dict[str, Counts], tracked: dict[str, Counts], limit: float = 1.05) -> list[str]:
    """Messages for counts that have grown or are not tracked."""
    return [
        f"{name}: {value:,} {what.replace('_', ' ')}, tracked are {tracked.get(name, {}).get(what, 0):,}"
        for name, counts in now.items()
        for what, value in counts.items()
        if value > limit * tracked.get(name, {}).get(what, 0)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    found = measured()
    for name, counts in found.items():
        print(f"{name:32}", *(f"{value:>16,} {what.replace('_', ' ')}" for what, value in counts.items()))
    if parser.parse_args().write:
        FILE.write_text(json.dumps({"torch": torch.__version__.partition("+")[0], "steps": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
