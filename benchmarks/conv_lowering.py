"""Compare implementations of convolution, and orders of transforms, for the vmapped meta-gradient.

    python benchmarks/conv_lowering.py [--device cpu] [--json OUT]

One inner step of conv4, second order, with each lowering of `lowerings.py`. The gradient is inside the vmap, as in
`fmaml.meta_grad`, or outside. "torch's norm" uses torch's batching of batch norm instead of fmaml's operator.
Before timing, all must give the same meta-gradient in float64.
"""

from collections.abc import Callable

import torch
from lowerings import LOWERINGS, Conv
from measure import Bench, Run, ratio, shown
from networks import Problem, conv28, conv84
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml.torch_fixes.norms import batch_norm, channelwise
from fmaml.tree import global_norm, map_leaves
from fmaml.types import Batch, Params, Task

CASES: list[tuple[str, Callable[[torch.device], Problem], int, tuple[int, ...]]] = [
    ("conv4 28x28x1, strided", conv28, 2, (4, 16, 64)),
    ("conv4 84x84x3, max-pooled", conv84, 1, (1, 4)),
]
DEFAULT = {1: "grouped, gradient inside", 2: "channels last, gradient inside"}  # by stride: fmaml.conv4's own
Norm = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    bench = Bench(__doc__, seconds=300)
    for name, make, stride, meta_batches in CASES[: 1 if bench.quick else 2]:
        problem = make(bench.device)
        for meta_batch in meta_batches[:1] if bench.quick else meta_batches:
            row = {"network": name, "meta_batch": meta_batch}
            if bench.left() < 0:
                bench.leave_out(row, f"{name}, {meta_batch} tasks", "no time left")
                continue
            runs = ways(problem, stride, problem.tasks(meta_batch))
            enough = 2 if bench.quick else 2 * stride  # 4 tasks if images are laid out channels last
            apart = differences(problem, stride, problem.tasks(enough))
            seconds = bench.time(runs, seconds=20)
            for way, samples in seconds.items():
                bench.add(
                    row | {"way": way, "relative_error": apart[way], "seconds": {way: samples}},
                    case=f"{name}, {meta_batch} tasks",
                    way=way,
                    time=shown(samples),
                    **{"of the default": f"{ratio(samples, seconds[DEFAULT[stride]]):.2f}"},
                )


def ways(problem: Problem, stride: int, tasks: Task) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    kinds = {name: (conv, batch_norm) for name, conv in LOWERINGS.items()}
    kinds |= {"grouped, torch's norm": (LOWERINGS["grouped"], torch_norm)}
    for name, (conv, norm) in kinds.items():
        loss = task_loss(problem, conv, norm, stride)
        runs[f"{name}, gradient inside"] = lambda loss=loss: inside(loss, problem.params, tasks)
        runs[f"{name}, gradient outside"] = lambda loss=loss: outside(loss, problem.params, tasks)
    return runs


def inside(loss: Callable[[Params, Task], Tensor], theta: Params, tasks: Task) -> Params:
    return map_leaves(lambda g: g.mean(0), vmap(grad(loss), (None, 0))(theta, tasks))


def outside(loss: Callable[[Params, Task], Tensor], theta: Params, tasks: Task) -> Params:
    return grad(lambda theta: vmap(loss, (None, 0))(theta, tasks).mean())(theta)


def differences(problem: Problem, stride: int, tasks: Task) -> dict[str, float]:
    """The relative error of each meta-gradient against the default's, in float64; exits if it exceeds rounding."""

    def double(leaf: Tensor) -> Tensor:
        return leaf.double() if leaf.is_floating_point() else leaf

    exact = problem._replace(params=map_leaves(double, problem.params))
    runs = ways(exact, stride, map_leaves(double, tasks))
    right = runs[DEFAULT[stride]]()
    apart = {
        way: float(global_norm(map_leaves(torch.sub, run(), right)) / global_norm(right)) for way, run in runs.items()
    }
    if wrong := {way: error for way, error in apart.items() if error > 1e-9}:
        raise SystemExit(f"another meta-gradient: {wrong}")
    return apart


def torch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return channelwise(F.batch_norm(x, None, None, training=True), scale, shift)


def task_loss(problem: Problem, conv: Conv, norm: Norm, stride: int) -> Callable[[Params, Task], Tensor]:
    def loss_fn(params: Params, batch: Batch) -> Tensor:
        return fmaml.cross_entropy(conv4(params, batch.x, conv, norm, stride), batch.y)

    def loss(theta: Params, task: Task) -> Tensor:
        return loss_fn(fmaml.inner_update(loss_fn, theta, task.support, problem.inner_lr), task.query)

    return loss


def conv4(params: Params, x: Tensor, conv: Conv, norm: Norm, stride: int) -> Tensor:
    """`fmaml.conv4` with another convolution and batch norm."""
    for i in range(1, 5):
        x = conv(x, params[f"conv{i}.weight"], stride)
        x = torch.relu(norm(x, params[f"norm{i}.weight"], params[f"norm{i}.bias"]))
        x = x if stride == 2 else F.max_pool2d(x, 2)
    x = x.mean((2, 3)) if stride == 2 else x.flatten(1)
    return F.linear(x, params["head.weight"], params["head.bias"])


if __name__ == "__main__":
    main()
