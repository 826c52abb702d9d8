"""Time one meta-step on a CPU with different numbers of threads.

    python benchmarks/threads.py [--json OUT]

The vmapped meta-step (second order, one inner step, 16 tasks) with 1, 2, 4, .. threads in turn, up to torch's default.
The ratio is to the default. If several runs share a machine, one thread per run is best.
"""

import torch
from measure import Bench, Run, ratio, shown
from networks import PROBLEMS

TASKS = 16


def main() -> None:
    bench = Bench(__doc__, seconds=120)
    most = torch.get_num_threads()
    counts = sorted({min(2**i, most) for i in range(most.bit_length() + 1)})
    for name in ["mlp 40-40"] if bench.quick else PROBLEMS:
        row = {"network": name, "steps": 1, "meta_batch": TASKS}
        if bench.left() < 0:
            bench.leave_out(row, name, "no time left")
            continue
        problem = PROBLEMS[name](bench.device)
        step = problem.step(problem.maml(1), problem.tasks(TASKS), batching="auto")
        seconds = bench.time({str(count): with_threads(count, step) for count in counts}, seconds=8)
        for count, samples in seconds.items():
            of_default = f"{ratio(samples, seconds[str(most)]):.2f}"
            row |= {"step_threads": int(count), "seconds": {"step": samples}}
            bench.add(dict(row), case=name, threads=count, time=shown(samples), ratio=of_default)
    torch.set_num_threads(most)


def with_threads(count: int, run: Run) -> Run:
    def timed() -> None:
        torch.set_num_threads(count)
        run()

    return timed


if __name__ == "__main__":
    main()
