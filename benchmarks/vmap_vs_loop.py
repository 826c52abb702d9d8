"""Time one meta-step vmapped, in chunks and looped.

    python benchmarks/vmap_vs_loop.py [--device cpu] [--json OUT] [--compile]

Five networks, second order, Adam outside, over inner steps and meta-batches. A way is omitted if it would take too long
or too much memory. The time is predicted from one task or a smaller meta-batch, the memory from one task. Chunks have 4
tasks; the ratio is vmapped over looped. With glibc, the first two rows are one case with the allocator's default, and
as `fmaml run` sets it. --compile adds the vmapped step as one compiled graph to three cases; compiling takes one or two
minutes each.
"""

from functools import partial
from itertools import product
from typing import Any

import torch
from counted import peak_bytes, room
from measure import Bench, Run, Samples, plural, ratio, shown, timed
from networks import PROBLEMS, Problem

import fmaml
from fmaml.training.compiled import compiled
from fmaml.training.memory import keep_freed_memory
from fmaml.types import Task

STEPS, META_BATCHES, CHUNK = (1, 5, 20), (1, 4, 16, 64, 256), 4
WAYS: dict[str, dict[str, Any]] = {"loop": {"batching": "loop"}, "vmap": {}, "chunks": {"chunk_size": CHUNK}}
COMPILED = (("mlp 40-40", 1, 16), ("mlp 40-40", 5, 16), ("conv4 28x28x1", 1, 16))  # network, inner steps, meta-batch
ROUNDS, LONGEST = 3, 12.0  # the least rounds, and their most seconds for each way


def main() -> None:
    bench = Bench(__doc__, seconds=600, keep=False, compile={"action": "store_true"})
    names = ["mlp 40-40"] if bench.quick else list(PROBLEMS)
    problems = {name: PROBLEMS[name](bench.device) for name in names}
    if bench.device.type == "cpu":
        allocator(bench, names[0], problems[names[0]])
    steps, meta_batches = ((1,), (4, 16)) if bench.quick else (STEPS, META_BATCHES)
    for k, name in product(steps, names):
        network(bench, name, problems[name], k, meta_batches)


def allocator(bench: Bench, name: str, problem: Problem) -> None:
    """Time one case before and after the allocator is set to keep freed memory, which cannot be undone."""
    row = {"network": name, "steps": 1, "meta_batch": 16}
    runs = ways(problem, 1, problem.tasks(16), list(WAYS))
    report(bench, row | {"allocator": "as it comes", "seconds": bench.time(runs)})
    if keep_freed_memory():
        bench.result["environment"]["freed_memory_kept"] = True
        report(bench, row | {"allocator": "freed memory kept", "seconds": bench.time(runs)})


def network(bench: Bench, name: str, problem: Problem, steps: int, meta_batches: tuple[int, ...]) -> None:
    """Time all meta-batches, the small ones first, because they predict the time of the larger ones."""
    if bench.left() < 0:
        return bench.leave_out({"network": name, "steps": steps}, f"{name}, {plural(steps, 'step')}", "no time left")
    one = ways(problem, steps, problem.tasks(1), ["loop"])["loop"]
    one()
    size, seconds = peak_bytes(one), dict.fromkeys(WAYS, timed(one, bench.device))  # of one task
    for meta_batch in meta_batches:
        row: dict[str, Any] = {"network": name, "steps": steps, "meta_batch": meta_batch}
        asked = list(WAYS)[: 3 if meta_batch > CHUNK else 2]
        out = {way: why for way in asked if (why := too_much(bench, way, meta_batch, size, seconds[way]))}
        row |= {"left_out": out} if out else {}
        if len(out) < len(asked):
            tasks = problem.tasks(meta_batch)
            runs = ways(problem, steps, tasks, [way for way in asked if way not in out])
            if bench.args.compile and (name, steps, meta_batch) in COMPILED and "vmap" in runs:
                runs["compiled"] = whole(problem, steps, tasks)
                row["compile_seconds"] = timed(runs["compiled"], bench.device)
            try:
                row["seconds"] = bench.time(runs, seconds=2, least=ROUNDS)
            except torch.cuda.OutOfMemoryError:
                row["left_out"] = dict.fromkeys(asked, "out of memory")
            seconds |= {way: min(samples) / meta_batch for way, samples in row.get("seconds", {}).items()}
        report(bench, row)
    return None


def too_much(bench: Bench, way: str, meta_batch: int, size: int, seconds: float) -> str:
    """The reason to omit a way, from the bytes and the seconds of one task, or ""."""
    longest = min(LONGEST, bench.args.seconds / 50, bench.left())
    duration = (ROUNDS + 1) * meta_batch * seconds
    need = size * {"loop": 1, "vmap": meta_batch, "chunks": CHUNK}[way]
    if longest < 0:
        return "no time left"
    if duration > longest:
        return f"would take {duration:.0f} s, more than {longest:.0f}"
    return f"would need {need / 2**30:.0f} GiB" if need > room(bench.device) else ""


def ways(problem: Problem, steps: int, tasks: Task, names: list[str]) -> dict[str, Run]:
    algorithm = problem.maml(steps)
    return {name: problem.step(algorithm, tasks, **WAYS[name]) for name in names}


def report(bench: Bench, row: dict[str, Any]) -> None:
    seconds: Samples = row.get("seconds", {})
    columns = [*WAYS, *["compiled"] * bench.args.compile]
    both = {"loop", "vmap"} <= seconds.keys()
    bench.add(
        row,
        case=f"{row['network']}, {plural(row['steps'], 'step')}, {plural(row['meta_batch'], 'task')}",
        **{way: shown(seconds[way]) if way in seconds else "-" for way in columns},
        ratio=f"{ratio(seconds['vmap'], seconds['loop']):.2f}" if both else "-",
        note=row.get("allocator")
        or "; ".join(f"{way} left out: {why}" for way, why in row.get("left_out", {}).items()),
    )


def whole(problem: Problem, steps: int, tasks: Task) -> Run:
    """The vmapped meta-step as one compiled graph, as with train.compile=true."""
    algorithm, optimizer = problem.maml(steps), fmaml.adam(1e-3)
    state = fmaml.init_state(algorithm, optimizer, problem.params)
    step = compiled(partial(fmaml.meta_step, algorithm, optimizer), algorithm, print)
    return lambda: step(state, tasks)


if __name__ == "__main__":
    main()
