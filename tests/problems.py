"""Tasks whose answers are known in closed form, and the small helpers that the laws are stated with."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

import fmaml
from fmaml import Batch, Model, Params, Task
from fmaml.tree import leaves

F64 = torch.float64
POOLS, NORMS = ("stride", "max"), ("batch", "group", "layer", "none")
SHAPES = ((1, 28, 28), (3, 20, 24))


def quadratic(params: Params, batch: Batch) -> Tensor:
    """1/2 (p - c)' A (p - c) with A = batch.x [dim, dim] and c = batch.y [dim]."""
    gap = params["p"] - batch.y
    return 0.5 * gap @ batch.x @ gap


def quadratic_tasks(tasks: int, dim: int) -> Task:
    """Random tasks with A, B positive definite, eigenvalues in [0.1, 2]."""

    def definite() -> Tensor:
        q = torch.linalg.qr(torch.randn(tasks, dim, dim, dtype=F64)).Q
        return q @ torch.diag_embed(0.1 + 1.9 * torch.rand(tasks, dim, dtype=F64)) @ q.mT

    def centre() -> Tensor:
        return torch.randn(tasks, dim, dtype=F64)

    return Task(Batch(definite(), centre()), Batch(definite(), centre()))


def contraction(task: Task, lr: float, steps: int) -> Tensor:
    """(I - alpha A)^K of each stacked task, [tasks, dim, dim]."""
    a = task.support.x
    return torch.linalg.matrix_power(torch.eye(a.shape[-1], dtype=F64) - lr * a, steps)


def adapted(theta: Tensor, task: Task, lr: float, steps: int) -> Tensor:
    """phi_K = c + (I - alpha A)^K (theta - c), [tasks, dim]."""
    c = task.support.y
    return c + (contraction(task, lr, steps) @ (theta - c)[..., None])[..., 0]


def residual(phi: Tensor, task: Task) -> Tensor:
    """B (phi - q): the query gradient at phi, [tasks, dim]."""
    return (task.query.x @ (phi - task.query.y)[..., None])[..., 0]


def relative(a: Any, b: Any) -> float:
    """|a - b| / |b| over whole trees."""
    gap = sum(float((x - y).square().sum()) for x, y in zip(leaves(a), leaves(b), strict=True))
    return math.sqrt(gap / sum(float(y.square().sum()) for y in leaves(b)))


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that were held at a time, as torch's own profiler saw them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            run()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events: list[Any] = profile.profiler.kineto_results.events()  # torch's stubs leave out their nbytes
    held = most = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def doubled(params: Params) -> Params:
    return {name: value.to(F64) for name, value in params.items()}


def image_tasks(tasks: int, shape: tuple[int, ...], ways: int = 3, queries: int = 2) -> Task:
    """Random images with labels 0 .. ways - 1, in float64."""

    def batch(each: int) -> Batch:
        y = torch.arange(ways).repeat_interleave(each).repeat(tasks, 1)
        return Batch(torch.rand(tasks, ways * each, *shape, dtype=F64), y)

    return Task(batch(1), batch(queries))


def regression_tasks(tasks: int, inputs: int, outputs: int, n: int = 6) -> Task:
    def batch() -> Batch:
        return Batch(torch.randn(tasks, n, inputs, dtype=F64), torch.randn(tasks, n, outputs, dtype=F64))

    return Task(batch(), batch())


def conv4_agrees(pool: Any, norm: Any, inputs: tuple[int, ...], first_order: bool) -> None:
    model = fmaml.conv4(outputs=3, width=8, pool=pool, norm=norm, inputs=inputs)
    all_ways_agree(model, image_tasks(3, inputs), fmaml.cross_entropy, first_order)


def all_ways_agree(model: Model, tasks: Task, criterion: Callable[[Tensor, Tensor], Tensor], first_order: bool) -> None:
    """Looped, vmapped, chunked (also unevenly), gradient inside and outside the vmap: one meta-gradient."""
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, criterion), inner_lr=0.4, steps=2, first_order=first_order)
    expected, metrics = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    assert all(g.isfinite().all() for g in expected.values())
    ways: list[dict[str, Any]] = [{}, {"batching": "auto"}, {"chunk_size": 2}, {"chunk_size": 1}, {"chunk_size": 9}]
    for options in ways:
        grads, also = fmaml.meta_grad(algorithm, theta, tasks, **options)
        assert relative(grads, expected) < 1e-12
        assert relative(also, metrics) < 1e-12
        outside = grad(lambda t, o=options: fmaml.meta_loss(algorithm, t, tasks, **o)[0])(theta)
        assert relative(outside, expected) < 1e-12


def weighted(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """The sum of the function's outputs' sines, each with a weight of its own."""

    def total(*args: Tensor) -> Tensor:
        found = leaves(function(*args))
        return torch.stack(
            [(torch.linspace(0.1, 1, t.numel(), dtype=t.dtype).view(t.shape) * t.sin()).sum() for t in found]
        ).sum()

    return total
