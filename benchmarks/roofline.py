"""Compare the vmapped meta-step with the peak rates of this machine.

    python benchmarks/roofline.py [--device cpu] [--json OUT]

The model of a step counts only its products: convolutions and matrix products. Each relates an input x, a weight W and
an output y; one of the three is computed from the other two. All cost the same: 2 |W| operations per position of y.
The number of products per example:

- query, 3 products: y, x's gradient, W's gradient.
- inner step, 9 products: the same 3, and their derivative. The derivative has 2 for W's gradient, 2 for x's gradient,
  and 2 for backward through y.

The gradient of the first layer's x is not needed, which saves 1 and 5 products. The bytes are one read of each
product's two operands and one write of its result; each task has its own W. Everything between the products (norms,
ReLUs, loss, update) counts as fused and free. So this is a lower bound, and not a tight one: a kernel could read x once
for two products.

The peak rates are measured on a large matrix product and a large copy, with the same dtype and threads, in turn with
the step. The result is the larger of the two times at peak rates, divided by the measured time. The operations are
checked against torch's count for the looped step.
"""

import statistics
from typing import NamedTuple

import torch
from measure import Bench, Run, plural, ratio, shown
from networks import Problem, conv28, mlp
from torch.utils.flop_counter import FlopCounterMode

from fmaml.types import Params


class Layer(NamedTuple):
    """A product, with its numbers of elements for one example."""

    x: int
    weight: int
    y: int
    positions: int  # of y, at which W is applied

    @property
    def flop(self) -> int:
        return 2 * self.weight * self.positions


def layers(params: Params, size: int) -> list[Layer]:
    """The layers of conv4 on images of size x size, or of the multi-layer perceptron."""
    found = []
    for weight in params.values():
        if weight.ndim == 4:
            after = (size + 1) // 2  # stride 2
            width, channels = weight.shape[:2]
            found.append(Layer(channels * size**2, weight.numel(), width * after**2, after**2))
            size = after
        elif weight.ndim == 2:
            found.append(Layer(weight.shape[1], weight.numel(), weight.shape[0], 1))
    return found


def work(found: list[Layer], tasks: int, steps: int, support: int, query: int) -> tuple[int, int]:
    """Operations and bytes (float32) of a meta-step, by the model above."""
    flop = moved = 0
    for i, layer in enumerate(found):
        inner, outer = (4, 2) if i == 0 else (9, 3)
        examples = steps * inner * support + outer * query
        flop += tasks * examples * layer.flop
        moved += tasks * 4 * (examples * (layer.x + layer.y) + (steps * inner + outer) * layer.weight)
    return flop, moved


def main() -> None:
    bench = Bench(__doc__, seconds=120)
    cases = [("mlp 40-40", mlp, 25, 5), ("conv4 28x28x1", conv28, 16, 1), ("conv4 28x28x1", conv28, 16, 5)]
    for name, make, tasks, steps in cases[: 1 if bench.quick else None]:
        if bench.left() < 0:
            bench.leave_out({"network": name, "tasks": tasks, "steps": steps}, f"{name}, {steps} steps", "no time left")
        else:
            measure(bench, name, make(bench.device), tasks, steps)


def measure(bench: Bench, name: str, problem: Problem, tasks: int, steps: int) -> None:
    batch, algorithm = problem.tasks(tasks), problem.maml(steps)
    flop, moved = work(
        layers(problem.params, batch.support.x.shape[-1]),
        tasks,
        steps,
        batch.support.y.shape[1],
        batch.query.y.shape[1],
    )
    with FlopCounterMode(display=False) as counter:
        problem.step(algorithm, batch, batching="loop")()
    counted = counter.get_total_flops()
    tf32 = bench.device.type == "cuda" and "conv1.weight" in problem.params and torch.backends.cudnn.allow_tf32
    edge, size = ceiling_sizes(bench)
    runs = {"step": problem.step(algorithm, batch), "product": product(edge, bench.device, tf32)}
    runs["copy"] = copy(size, bench.device)
    seconds = bench.time(runs, seconds=15, least=5)
    floors = [
        max(flop / (2 * edge**3) * a, moved / (2 * size) * b)
        for a, b in zip(seconds["product"], seconds["copy"], strict=True)
    ]
    row = {"network": name, "tasks": tasks, "steps": steps, "flop": flop, "flop_counted_by_torch": counted}
    row |= {"bytes": moved, "product_edge": edge, "product_tf32": tf32, "copy_bytes": size, "seconds": seconds}
    product_time, copy_time = statistics.median(seconds["product"]), statistics.median(seconds["copy"])
    bench.add(
        row,
        case=f"{name}, {plural(tasks, 'task')}, {plural(steps, 'step')}",
        GFLOP=f"{flop / 1e9:.4g}",
        counted=f"{counted / flop:.3f} of it",
        MB=f"{moved / 1e6:.4g}",
        GFLOPs=f"{2 * edge**3 / product_time / 1e9:,.0f} GFLOP/s",
        GBs=f"{2 * size / copy_time / 1e9:,.1f} GB/s",
        time=shown(seconds["step"]),
        reached=f"{ratio(floors, seconds['step']):.1%}",
    )


def ceiling_sizes(bench: Bench) -> tuple[int, int]:
    """The edge of the product's square matrices, and the bytes copied; both exceed the caches."""
    if bench.quick:
        return 256, 2**20
    return (8192, 2**31) if bench.device.type == "cuda" else (2048, 2**28)


def product(edge: int, device: torch.device, tf32: bool) -> Run:
    a, b, out = (torch.randn(edge, edge, device=device) for _ in range(3))

    def run() -> None:
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, tf32
        torch.mm(a, b, out=out)
        torch.backends.cuda.matmul.allow_tf32 = before

    return run


def copy(size: int, device: torch.device) -> Run:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


if __name__ == "__main__":
    main()
