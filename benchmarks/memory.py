"""Measure the peak of memory of a meta-gradient, beside a plain loop's and JAX's.

    python benchmarks/memory.py [--device cpu] [--json OUT] [--rows ROW ..]

The rows are those of `networks.py`, and conv4 with 20 inner steps. On a CPU each case runs in a separate process: the
peak of resident memory during a call, minus the resident memory before it. An earlier call has loaded the kernels and
compiled. On a GPU it is torch's peak allocated memory. The table also has the memory predicted by counting tensors, and
the time. For "recomputed" the time is relative to vmapped, in turn in one process.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from counted import peak_bytes, room
from measure import Bench, Run, ratio, shown, timed
from networks import ROWS, Problem, Row, conv28
from peers_jax import jax_looped, jax_vmapped
from peers_torch import autograd_loop

import fmaml
from fmaml.training.memory import keep_freed_memory
from fmaml.types import Task

CASES = ROWS | {"conv4 28x28x1, 20 steps": Row(conv28, 16, 20)}
REPEATS, CHUNK = 3, 4
LONGEST = 240  # the time limit of one case in seconds


def fmaml_way(**options: Any) -> Callable[[Problem, Task, int], Run]:
    def way(problem: Problem, tasks: Task, steps: int) -> Run:
        rest = dict(options)
        algorithm = problem.maml(steps, remat=rest.pop("remat", False))
        return lambda: fmaml.meta_grad(algorithm, problem.params, tasks, **rest)

    return way


WAYS: dict[str, Callable[[Problem, Task, int], Run]] = {
    "vmapped": fmaml_way(),
    "recomputed": fmaml_way(remat=True),
    f"chunks of {CHUNK}": fmaml_way(chunk_size=CHUNK),
    "looped": fmaml_way(batching="loop"),
    "autograd loop": autograd_loop,
    "JAX, jit(vmap)": jax_vmapped,
    "JAX, jit, looped": jax_looped,
}


def main() -> None:
    rows = {"nargs": "+", "choices": list(CASES), "default": list(CASES)}
    bench = Bench(__doc__, seconds=600, keep=False, rows=rows, case={"help": "the case to measure in this process"})
    if bench.args.case:
        print(json.dumps(measure(json.loads(bench.args.case), bench.device)))
        return
    for name in bench.args.rows[:1] if bench.quick else bench.args.rows:
        tasks = 2 if bench.quick else CASES[name].tasks
        for way in list(WAYS)[:2] if bench.quick else WAYS:
            case = {"network": name, "tasks": tasks, "steps": CASES[name].steps, "way": way}
            title = f"{name}, {way}"
            if tasks <= CHUNK and way.startswith("chunks"):
                continue
            late: dict[str, Any] = {"left_out": "no time left"}
            found = alone(case, str(bench.device)) if bench.left() > 0 else late
            if "left_out" in found:
                bench.leave_out(case, title, found["left_out"])
                continue
            columns = {key: f"{found[key] / 2**20:,.0f} MiB" for key in ("measured", "counted") if key in found}
            if "kept" in found["seconds"]:
                columns["of the time"] = f"{ratio(found['seconds']['call'], found['seconds']['kept']):.2f}"
            bench.add(case | found, case=title, time=shown(found["seconds"]["call"]), **columns)


def alone(case: dict[str, Any], device: str) -> dict[str, Any]:
    """Run `measure` in a separate process."""
    command = [sys.executable, __file__, "--device", device, "--case", json.dumps(case)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return {"left_out": f"not done in {LONGEST} s"}
    if ran.returncode:
        return {"left_out": (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]}
    return json.loads(ran.stdout.splitlines()[-1])


def measure(case: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Measured bytes, counted bytes (not of JAX), and seconds."""
    problem, way = CASES[case["network"]].make(device), case["way"]
    run = WAYS[way](problem, problem.tasks(case["tasks"]), case["steps"])
    found: dict[str, Any] = {}
    if not way.startswith("JAX"):
        one = peak_bytes(WAYS[way](problem, problem.tasks(1), case["steps"]))
        if one * (1 if "loop" in way else case["tasks"]) > room(device):
            return {"left_out": f"one task would need {one / 2**30:.1f} GiB"}
        found["counted"] = peak_bytes(run)
    timed(run, device)
    before = occupied(device)
    timed(run, device)
    found["measured"] = occupied(device, peak=True) - before
    if device.type == "cpu":
        keep_freed_memory()  # only now, because memory that is kept does not count
    runs = {"call": run}
    if way == "recomputed":
        runs["kept"] = WAYS["vmapped"](problem, problem.tasks(case["tasks"]), case["steps"])
    rounds = [[timed(each, device) for each in runs.values()] for _ in range(REPEATS + 1)]
    found["seconds"] = dict(zip(runs, map(list, zip(*rounds[1:], strict=True)), strict=True))
    return found


def occupied(device: torch.device, peak: bool = False) -> int:
    """Bytes in use now, or their peak since the last call."""
    if device.type == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not peak:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory would be filled without a trace
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
