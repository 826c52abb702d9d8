"""Measure the memory of a meta-step, by inner steps and tasks, with recomputation and in chunks.

    python benchmarks/memory.py [--device cpu] [--json OUT]

conv4 on 28x28x1, second order. On a CPU each case runs in a separate process: the peak of resident memory minus a
baseline. The baseline is taken after the imports and a small step that loads the kernels: one task, one inner step. On
a GPU it is torch's peak allocated memory. The table also has the memory predicted by counting tensors, and the time of
a step.
"""

import json
import resource
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from counted import peak_bytes, room
from measure import Bench, plural, shown, timed
from networks import Problem, conv28, mlp

from fmaml.training.memory import keep_freed_memory

STEPS, META_BATCHES, CHUNK, REPEATS = (1, 5, 10, 20), {"cpu": (4, 16), "cuda": (16, 128)}, 4, 2
VARIANTS: dict[str, dict[str, Any]] = {
    "kept": {},
    "again": {"remat": True},
    f"chunks of {CHUNK}": {"chunk_size": CHUNK},
    f"again, chunks of {CHUNK}": {"remat": True, "chunk_size": CHUNK},
}
LONGEST = 240  # the time limit of one case in seconds


def main() -> None:
    bench = Bench(__doc__, seconds=600, keep=False, case={"help": "the case to measure in this process"})
    if bench.args.case:
        case = json.loads(bench.args.case)
        return print(json.dumps(measure(case, mlp(bench.device) if case["quick"] else conv28(bench.device))))
    problem = conv28(bench.device) if bench.device.type == "cuda" else None  # else each case builds its own
    steps, meta_batches = ((1,), (2,)) if bench.quick else (STEPS, META_BATCHES[bench.device.type])
    for meta_batch, k, variant in product(meta_batches, steps, VARIANTS):
        case = {"quick": bench.quick, "meta_batch": meta_batch, "steps": k, "variant": variant}
        title = f"{plural(k, 'step')}, {plural(meta_batch, 'task')}, {variant}"
        if bench.quick and variant != "again":
            continue
        if bench.left() < 0:
            bench.leave_out(case, title, "no time left")
            continue
        found = measure(case, problem) if problem else alone(case)
        if "left_out" in found:
            bench.leave_out(case, title, found["left_out"])
        else:
            columns = {key: f"{found[key] / 2**20:,.0f} MiB" for key in ("measured", "counted")}
            bench.add(case | found, case=title, **columns, time=shown(found["seconds"]["step"]))


def alone(case: dict[str, Any]) -> dict[str, Any]:
    """Run `measure` in a separate process."""
    command = [sys.executable, __file__, "--device", "cpu", "--case", json.dumps(case)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return {"left_out": f"not done in {LONGEST} s"}
    if ran.returncode:
        return {"left_out": (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]}
    return json.loads(ran.stdout.splitlines()[-1])


def measure(case: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """Measured bytes, counted bytes, and seconds."""
    device, options = next(iter(problem.params.values())).device, dict(VARIANTS[case["variant"]])
    algorithm = problem.maml(case["steps"], remat=options.pop("remat", False))
    size = peak_bytes(problem.step(algorithm, problem.tasks(1)))
    size *= min(case["meta_batch"], options.get("chunk_size", case["meta_batch"]))
    if size > room(device):
        return {"left_out": f"would need {size / 2**30:.0f} GiB"}
    timed(problem.step(problem.maml(1), problem.tasks(1)), device)
    run = problem.step(algorithm, problem.tasks(case["meta_batch"]), **options)
    before = occupied(device)
    if device.type == "cpu":
        keep_freed_memory()  # only now, so that memory freed by the small step does not count as occupied
    try:
        timed(run, device)
    except torch.cuda.OutOfMemoryError:
        return {"left_out": "out of memory"}
    measured = occupied(device, peak=True) - before
    return {"measured": measured, "counted": size, "seconds": {"step": [timed(run, device) for _ in range(REPEATS)]}}


def occupied(device: torch.device, peak: bool = False) -> int:
    """Bytes in use now, or their peak since the last call."""
    if device.type == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        key = "VmHWM:" if peak else "VmRSS:"
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
