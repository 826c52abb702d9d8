"""Time and memory of one meta-step of each algorithm, relative to MAML.

Time: all algorithms interleaved in one process; medians, and medians of the ratios to MAML per round. Memory: each in a
separate process, the growth of peak resident memory during two meta-steps (Linux only).
`python benchmarks/costs.py NAME` prints the memory.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.outer import init_state, meta_step
from fmaml.training.memory import keep_freed_memory

REFERENCE = "maml"
ROUNDS, WARM_UP = 5, 1


def measure(names: list[str], overrides: list[str]) -> dict[str, Any]:
    """Name -> milliseconds and megabytes of a meta-step, both as multiples of the reference's, and inner steps."""
    every = list(dict.fromkeys([REFERENCE, *names]))
    seconds, megabytes = times(every, overrides), {name: memory(name, overrides) for name in every}
    return {
        name: {
            "milliseconds": 1e3 * statistics.median(seconds[name]),
            "time": statistics.median(a / b for a, b in zip(seconds[name], seconds[REFERENCE], strict=True)),
            "megabytes": megabytes[name],
            "memory": megabytes[name] / megabytes[REFERENCE],
            "steps": load_config(f"algorithms/{name}", overrides)["algorithm"].get("steps", 0),
            "seconds": seconds[name],
        }
        for name in every
    }


def times(names: list[str], overrides: list[str]) -> dict[str, list[float]]:
    keep_freed_memory()
    steps = {name: step(name, overrides) for name in names}
    seconds = {name: [] for name in names}
    for turn in range(WARM_UP + ROUNDS):
        for name, run in steps.items():
            started = time.perf_counter()
            run()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def step(name: str, overrides: list[str]) -> Callable[[], Any]:
    """One meta-step, half-way through training."""
    config = load_config(f"algorithms/{name}", overrides)
    experiment = build(config, torch.device("cpu"))
    params = experiment.model.init(torch.Generator().manual_seed(0))
    state = init_state(experiment.algorithm, experiment.optimizer, params)
    state = state._replace(step=config["train"]["meta_steps"] // 2)
    tasks = experiment.source.sample("train", 1, range(config["train"]["meta_batch"]))
    return lambda: meta_step(experiment.algorithm, experiment.optimizer, state, tasks)


def memory(name: str, overrides: list[str]) -> float:
    """Megabytes of two meta-steps, measured in a new process."""
    command = [sys.executable, __file__, name, *overrides]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def growth(name: str, overrides: list[str]) -> float:
    """Megabytes that two meta-steps add to the memory of this process."""
    keep_freed_memory()
    run = step(name, overrides)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = held("VmRSS")
    for _ in range(2):
        run()
    return held("VmHWM") - before


def held(what: str) -> float:
    """Resident megabytes of this process: now (VmRSS), or the peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024 / 1e6


if __name__ == "__main__":
    print(growth(sys.argv[1], sys.argv[2:]))
