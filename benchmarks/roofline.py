"""How far is the vmapped meta-step from what this machine can do?

    python benchmarks/roofline.py [--device cpu] [--json OUT]

The step is taken as its products: convolutions and matrix products, each a bilinear map of an input x, a weight W and
an output y, of which one is computed from the other two. All three cost the same, 2 |W| operations for each position
of y. For each example

    query        y from x and W; x's gradient; W's gradient                                     3 products
    inner step   the same, and the derivative of that: by W's gradient 2 (of x and of y's gradient), by x's gradient 2
                 (of W and of y's gradient), and backward through y 2                           9 products

less those for the gradient of the first layer's x, which nobody asks for: 1 and 5. The bytes are each product's two
operands read once and its result written once, each task with a W of its own; what stands between the products (norms,
rectifiers, the loss, the update) is taken as fused into them and free. So this is a floor, and not a sharp one: a
kernel that kept x between two products would read it once for both.

The ceilings are a large matrix product and a large copy, of the same dtype and threads and in turn with the step. The
fraction is the larger of the two times at the ceilings, over the time measured. The operations are held against those
that torch counts in the looped step.
"""

import statistics
from typing import NamedTuple

import torch
from measure import Bench, Run, plural, ratio, shown
from networks import Problem, conv28, mlp
from torch.utils.flop_counter import FlopCounterMode

from fmaml.types import Params


class Layer(NamedTuple):
    """A product, by its elements for one example."""

    x: int
    weight: int
    y: int
    positions: int  # of y: how often W is applied

    @property
    def flop(self) -> int:
        return 2 * self.weight * self.positions


def layers(params: Params, size: int) -> list[Layer]:
    """Of conv4 on images of size x size, or of the multi-layer perceptron."""
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
    """Operations and bytes (float32) of a meta-step, by the products above."""
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
    """The edge of the product's square matrices and the bytes copied: past the caches."""
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
