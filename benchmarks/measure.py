"""Shared parts of the benchmarks: arguments, interleaved timing, the table and its JSON.

All alternatives are timed in turn in one process, round after round, so that a slow phase of the machine affects all of
them. A ratio is the median of the ratios per round.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from fmaml.processes.environment import environment, pick_device

Run = Callable[[], Any]
Samples = dict[str, list[float]]  # name of a run -> seconds, one a round


class Bench:
    """A script's arguments, device, time left and rows. The JSON is rewritten after every row."""

    def __init__(self, question: str | None, *, seconds: float, keep: bool = True, **flags: dict[str, Any]) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        parser = argparse.ArgumentParser(description=question, formatter_class=formatter)
        parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
        parser.add_argument("--json", type=Path, help="write all samples to this file")
        parser.add_argument("--quick", action="store_true", help="one round of the smallest sizes, as a test")
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="start nothing after this time (%(default)s)"
        )
        for flag, options in flags.items():
            parser.add_argument(f"--{flag}", **options)
        self.args = parser.parse_args()
        self.quick: bool = self.args.quick
        self.device = pick_device(self.args.device)
        self.end = time.perf_counter() + self.args.seconds
        from fmaml.training.memory import keep_freed_memory  # here, because it needs more packages than torch

        kept = keep and self.device.type == "cpu" and keep_freed_memory()
        about = {"freed_memory_kept": kept, "load_average": os.getloadavg(), "quick": self.quick}
        self.result: dict[str, Any] = {"environment": environment(self.device) | about, "rows": []}

    def left(self) -> float:
        """The seconds left to start something."""
        return self.end - time.perf_counter()

    def time(self, runs: dict[str, Run], seconds: float = 5, least: int = 3, most: int = 100) -> Samples:
        """Time one warm-up round, ``least`` rounds, and further ones until ``seconds`` are over."""
        least, most = (1, 1) if self.quick else (least, most)
        for run in runs.values():
            timed(run, self.device)
        samples: Samples = {name: [] for name in runs}
        until = time.perf_counter() + min(seconds, max(0, self.left()))
        for turn in range(most):
            if turn >= least and time.perf_counter() > until:
                break
            for name in list(runs)[
                :: -1 if turn % 2 else 1
            ]:  # alternate the order, so that no run always follows the same one
                samples[name].append(timed(runs[name], self.device))
        return samples

    def add(self, row: dict[str, Any], **cells: str) -> None:
        """Add a row to the JSON, and print its cells."""
        if not self.result["rows"]:
            print(aligned(cells))
        print(aligned(cells.values()), flush=True)
        self.result["rows"].append(row)
        if self.args.json:
            self.args.json.parent.mkdir(parents=True, exist_ok=True)
            self.args.json.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def leave_out(self, row: dict[str, Any], name: str, why: str) -> None:
        self.add(row | {"left_out": why}, case=name, why=f"left out: {why}")


def timed(run: Run, device: torch.device) -> float:
    """The seconds of one call, including its work on the device."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3


def aligned(cells: Iterable[str]) -> str:
    return "  ".join(f"{cell:<36}" if i == 0 else f"{cell:>18}" for i, cell in enumerate(cells))


def shown(samples: list[float]) -> str:
    """The median in milliseconds, and half the interquartile range."""
    median = f"{1e3 * statistics.median(samples):.4g}"
    if len(samples) < 3:
        return f"{median} ms"
    low, _, high = statistics.quantiles(samples, n=4)
    return f"{median} ± {500 * (high - low):.1g} ms"


def plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def ratio(of: list[float], to: list[float]) -> float:
    """The median of the ratios per round."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))
