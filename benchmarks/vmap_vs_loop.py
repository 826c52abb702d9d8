"""How long does one meta-step take, vmapped, in chunks and looped?

    python benchmarks/vmap_vs_loop.py [--device cpu] [--json OUT] [--compile]

Four networks, second order, Adam outside, over inner steps and tasks a meta-batch. A way is left out of a case where it
is predicted to take too long (from the time of one task, alone or in a smaller meta-batch) or too much memory (counted
for one task). With glibc the first two rows are the same case with the allocator as it comes, and as `fmaml run` sets
it. --compile adds the vmapped step with its meta-gradient compiled, for one inner step and a few meta-batches:
compiling takes a minute or two a case.
"""

from itertools import product
from typing import Any

import torch
from counted import peak_bytes, room
from harness import Bench, Run, Samples, ratio, shown, timed
from problems import PROBLEMS, Problem
from torch.func import grad, vmap

import fmaml
from fmaml.runtime import keep_freed_memory
from fmaml.types import Params, Task

STEPS, META_BATCHES, CHUNK = (1, 5, 20), (1, 4, 16, 64, 256), 4
COMPILED = ((1, 4), (1, 16), (1, 64))  # (inner steps, meta-batch)
ROUNDS, LONGEST = 3, 12.0  # seconds that the least rounds of one way may take


def main() -> None:
    bench = Bench(__doc__, seconds=600, keep=False, compile={"action": "store_true"})
    names = ["mlp 40-40"] if bench.quick else list(PROBLEMS)
    problems = {name: PROBLEMS[name](bench.device) for name in names}
    if bench.device.type == "cpu":
        allocator(bench, names[0], problems[names[0]])
    predicted: dict[tuple[str, int, str], float] = {}  # seconds a task, by network, inner steps and way
    for steps, meta_batch, name in product(STEPS[: 1 if bench.quick else None], META_BATCHES, names):
        if not bench.quick or meta_batch in (4, 16):
            case(bench, name, problems[name], steps, meta_batch, predicted)


def allocator(bench: Bench, name: str, problem: Problem) -> None:
    """One case before and after the allocator is told to keep freed memory; it cannot be untold."""
    for note in ("allocator as it comes", "freed memory kept"):
        if note == "freed memory kept" and not keep_freed_memory():
            return
        tasks = problem.tasks(16)
        seconds = bench.time(ways(problem, 1, tasks))
        row = {"network": name, "steps": 1, "meta_batch": 16, "allocator": note, "seconds": seconds}
        bench.add(row, case=f"{name}, 1 step, 16 tasks", **cells(seconds), note=note)
    bench.result["environment"]["freed_memory_kept"] = True


def case(bench: Bench, name: str, problem: Problem, steps: int, meta_batch: int, predicted: dict) -> None:
    row: dict[str, Any] = {"network": name, "steps": steps, "meta_batch": meta_batch}
    title = f"{name}, {steps} step{'s' * (steps > 1)}, {meta_batch} task{'s' * (meta_batch > 1)}"
    one = problem.step(problem.maml(steps), problem.tasks(1), batching="loop")
    if (name, steps, "loop") not in predicted:
        if bench.left() < 0:
            return bench.leave_out(row, title, "no time left")
        one()
        for way in ("loop", "vmap", f"chunks of {CHUNK}"):
            predicted[name, steps, way] = timed(one, bench.device)
        predicted[name, steps, "bytes"] = peak_bytes(one)
    out = {}
    for way in ("loop", "vmap", f"chunks of {CHUNK}"):
        at_a_time = {"loop": 1, "vmap": meta_batch}.get(way, CHUNK)
        duration = (ROUNDS + 1) * meta_batch * predicted[name, steps, way]
        size = at_a_time * predicted[name, steps, "bytes"]
        if duration > min(LONGEST, bench.left()):
            out[way] = f"would take {duration:.0f} s of {min(LONGEST, max(0, bench.left())):.0f}"
        elif size > room(bench.device):
            out[way] = f"would need {size / 2**30:.0f} GiB"
    runs = {way: run for way, run in ways(problem, steps, problem.tasks(meta_batch)).items() if way not in out}
    if not runs:
        return bench.leave_out(row | {"out": out}, title, "; ".join(f"{way} {why}" for way, why in out.items()))
    if bench.args.compile and (steps, meta_batch) in COMPILED and "vmap" in runs:
        runs["compiled"] = compiled(problem, steps, problem.tasks(meta_batch))
        row["compile_seconds"] = timed(runs["compiled"], bench.device)
    row["seconds"] = seconds = bench.time(runs, seconds=2, least=ROUNDS)
    for way in seconds:
        predicted[name, steps, way] = min(seconds[way]) / meta_batch
    note = "; ".join(f"{way} left out: {why}" for way, why in out.items())
    bench.add(row | {"left_out": out} if out else row, case=title, **cells(seconds), note=note)
    return None


def ways(problem: Problem, steps: int, tasks: Task) -> dict[str, Run]:
    algorithm = problem.maml(steps)
    runs = {"loop": problem.step(algorithm, tasks, batching="loop"), "vmap": problem.step(algorithm, tasks)}
    if len(tasks.query.y) > CHUNK:
        runs[f"chunks of {CHUNK}"] = problem.step(algorithm, tasks, chunk_size=CHUNK)
    return runs


def compiled(problem: Problem, steps: int, tasks: Task) -> Run:
    """The meta-step with its meta-gradient, vmap(grad) and the mean, as one compiled graph.

    The inner loop is written out, as dynamo cannot trace `fnmatch`, by which `fmaml.maml` picks what it adapts.
    """
    optimizer = fmaml.adam(1e-3)
    state = fmaml.init_state(problem.maml(steps), optimizer, problem.params)

    def task_loss(theta: Params, task: Task) -> torch.Tensor:
        for _ in range(steps):
            theta = fmaml.inner_update(problem.loss_fn, theta, task.support, problem.inner_lr)
        return problem.loss_fn(theta, task.query)

    def meta_grad(theta: Params) -> Params:
        return {name: g.mean(0) for name, g in vmap(grad(task_loss), (None, 0))(theta, tasks).items()}

    compiled_grad = torch.compile(meta_grad, fullgraph=True, dynamic=False)
    return lambda: optimizer.update(compiled_grad(state.theta), state.opt_state, state.theta)


def cells(seconds: Samples) -> dict[str, str]:
    columns = {way: shown(seconds[way]) if way in seconds else "-" for way in ("loop", "vmap", f"chunks of {CHUNK}")}
    both = "loop" in seconds and "vmap" in seconds
    columns["vmap/loop"] = f"{ratio(seconds['vmap'], seconds['loop']):.2f}" if both else "-"
    return columns | ({"compiled": shown(seconds["compiled"])} if "compiled" in seconds else {})


if __name__ == "__main__":
    main()
