"""Measure how a meta-step scales over processes with Gloo on this machine, and predict it for clusters.

    python benchmarks/scale.py [--json OUT] [--quick]

A meta-step of B tasks on p processes takes

    T(p) = o + B / p * t + a(p)    with a(p) = 2 (p - 1) L + 2 (p - 1) / p * bytes / W, a ring's all-reduce

Here o is the fixed time of a step, t the time of a task, L a message's latency and W a link's bandwidth.

For Gloo, L and W are fitted to all-reduces, o and t to steps of B and B / 4 tasks in one process. The predictions of
T(2) and T(4) are compared with measurements; more processes than cores share the cores. For clusters, L and W are the
assumptions below. GPUs: not measured yet. So the table has the time of the all-reduce, and the length of a step in
which it takes 3 %.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import fmaml
from fmaml import distributed
from fmaml.config.build import build
from fmaml.config.load import load_config
from fmaml.processes.environment import environment
from fmaml.training.run_experiment import initial_params
from fmaml.tree import leaves

CPU = torch.device("cpu")
CASES = {
    "conv4": ("omniglot", ["data.name=glyphs", "train.meta_batch=16"]),
    "sinusoid": ("sinusoid", ["train.meta_batch=24"]),
}
SIZES = [1 << power for power in (10, 14, 18, 22)]  # numbers in an all-reduce
NETWORKS = {"conv4": 112_000, "ResNet-12": 12_400_000, "LoRA": 100_000_000}  # parameters
GPUS_A_NODE, NVLINK, NODE_LATENCY = 8, 300e9, 5e-6  # bytes a second, and seconds; assumed for NCCL on H100s
INFINIBAND, NETWORK_LATENCY = 40e9, 10e-6  # one link of 400 Gb/s per GPU, minus protocol overhead; assumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(Path(args.worker), 3 if args.quick else 15)
        return
    measured = {count: launched(count, args.quick) for count in (1, 2, 4)}
    latency, bandwidth = fitted(measured[2]["all_reduce"])
    print(f"Gloo between 2 processes: {latency * 1e6:.0f} us a message, {bandwidth / 1e9:.2f} GB/s")
    table("case", "processes", "predicted", "measured", "reduction")
    rows = [row for case in CASES for row in held_against(case, measured, latency, bandwidth)]
    for row in rows:
        table(
            row["case"],
            row["processes"],
            *(f"{row[key] * 1e3:.2f} ms" for key in ("predicted", "measured", "reduction")),
        )
    threaded = launched(1, args.quick, threads=2)["steps"]
    for case, seconds in threaded.items():
        table(case, "1, 2 threads", "", f"{seconds * 1e3:.2f} ms", "")
    clusters = [cluster(name, gpus) for name in NETWORKS for gpus in (8, 64, 256, 1024)]
    table("network", "GPUs", "all-reduce", "in bf16", "3 % of a step")
    for row in clusters:
        table(row["network"], row["gpus"], *(f"{row[key] * 1e3:.2f} ms" for key in ("seconds", "bf16", "step")))
    if args.json:
        facts = {"environment": environment(CPU), "latency": latency, "bandwidth": bandwidth}
        facts |= {"processes": rows, "one_process_of_two_threads": threaded, "clusters": clusters, "samples": measured}
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


def table(*cells: object) -> None:
    """Print a row."""
    print("".join(f"{cell!s:>15}" for cell in cells))


def held_against(case: str, measured: dict[int, Any], latency: float, bandwidth: float) -> list[dict[str, Any]]:
    """Prediction and measurement for each number of processes."""
    rows: list[dict[str, Any]] = []
    numbers, alone, quarter = (measured[1][what][case] for what in ("numbers", "steps", "quarters"))
    of_tasks = (alone - quarter) / 0.75  # B t
    for count, found in measured.items():
        sharing = max(1, count / (os.cpu_count() or 1))  # processes per core
        predicted = (alone - of_tasks + of_tasks / count) * sharing + ring(count, 4 * numbers, latency, bandwidth)
        took = {"measured": found["steps"][case], "reduction": found["reductions"][case]}
        rows.append({"case": case, "processes": count, "predicted": predicted, **took})
    return rows


def ring(count: int, size: int, latency: float, bandwidth: float) -> float:
    """Seconds of an all-reduce of ``size`` bytes around a ring."""
    return 2 * (count - 1) * latency + 2 * (count - 1) / count * size / bandwidth


def cluster(name: str, gpus: int) -> dict[str, Any]:
    """An all-reduce within the nodes, then between them, where each GPU sends an eighth."""
    size, nodes = 4 * NETWORKS[name], max(1, gpus // GPUS_A_NODE)

    def seconds(size: int) -> float:
        inside = ring(min(gpus, GPUS_A_NODE), size, NODE_LATENCY, NVLINK)
        return inside + ring(nodes, size // GPUS_A_NODE, NETWORK_LATENCY, INFINIBAND)

    return {
        "network": name,
        "gpus": gpus,
        "seconds": seconds(size),
        "bf16": seconds(size // 2),
        "step": seconds(size) / 0.03,
    }


def fitted(samples: dict[str, float]) -> tuple[float, float]:
    """Fit latency and bandwidth for two processes, by least squares of the relative error over the sizes."""
    rows = [(2 / seconds, 4 * int(size) / seconds) for size, seconds in samples.items()]
    found = torch.linalg.lstsq(torch.tensor(rows, dtype=torch.float64), torch.ones(len(rows), 1, dtype=torch.float64))
    latency, inverse = found.solution.flatten().tolist()
    return max(latency, 0.0), 1 / inverse


def launched(count: int, quick: bool, threads: int = 1) -> dict[str, Any]:
    """The measurements of the worker in ``count`` processes."""
    with tempfile.NamedTemporaryFile() as file:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
            __file__,
        ]
        subprocess.run(
            [*launcher, "--worker", file.name, *["--quick"] * quick],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stderr=subprocess.PIPE,
        )
        return json.loads(Path(file.name).read_text())


def work(out: Path, repeats: int) -> None:
    """Time all-reduces and steps, as one of the processes."""
    dist.init_process_group("gloo")
    found: dict[str, Any] = {"all_reduce": {}, "steps": {}, "quarters": {}, "reductions": {}, "numbers": {}}
    for size in SIZES:
        buffer = torch.ones(size)
        found["all_reduce"][size] = median(lambda buffer=buffer: dist.all_reduce(buffer), 4 * repeats)
    for case, (experiment, words) in CASES.items():
        config = load_config(experiment, [*words, "train.compile=false"])
        built = build(config, CPU)
        tasks = config["train"]["meta_batch"]
        state = fmaml.init_state(built.algorithm, built.optimizer, initial_params(built, 0, CPU))
        ranges = [distributed.task_range(count) for count in (tasks, tasks // 4)]
        mine, quarter = (built.source.sample("train", 1, numbers) for numbers in ranges)
        reduce = distributed.reduce(tasks)

        def step(part: Any, built: Any = built, state: Any = state, reduce: Any = reduce) -> None:
            fmaml.meta_step(built.algorithm, built.optimizer, state, part, batching="vmap", reduce=reduce)

        means = (state.theta, {"query_loss": torch.zeros(())})
        found["numbers"][case] = sum(leaf.numel() for leaf in leaves(means))
        found["steps"][case] = median(partial(step, mine), repeats)
        found["quarters"][case] = median(partial(step, quarter), repeats)
        found["reductions"][case] = median(lambda reduce=reduce, means=means: reduce(means), 4 * repeats)
    if distributed.rank() == 0:
        out.write_text(json.dumps(found))
    dist.destroy_process_group()


def median(run: Callable[[], Any], repeats: int) -> float:
    """The median seconds of a call that all processes start together."""
    seconds: list[float] = []
    for _ in range(repeats + 2):
        dist.barrier()
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
