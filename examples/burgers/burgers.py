"""Burgers' equation u_t + u u_x = nu u_xx, where the viscosity nu is the task. No solution is needed for training.

The task is that of the meta-optimization example of opifex (avitai/opifex).
"""

import torch
from torch import Tensor
from torch.func import grad

import fmaml
from fmaml.data import Metric, Source, task_keys
from fmaml.losses import Apply, Criterion
from fmaml.rng import fold, uniform
from fmaml.setting_types import Size, gives
from fmaml.types import LossFn, MetricFn

from .exact import exact
from .pictures import save_solutions

LOW, HIGH = 0.005, 0.05  # viscosities, uniform
FRONT = 0.1  # in the weight of the loss
END = 0.5  # x is in [-1, 1], t in [0, END]
GRID = torch.cartesian_prod(torch.linspace(-1, 1, 81), torch.linspace(0, END, 11))  # where errors are measured


@gives("numbers", "own_loss")
def burgers(*, seed: int, device: torch.device, points: Size = 200, queries: Size = 200) -> Source:
    """Burgers' equation with viscosities uniform in [0.005, 0.05], from u = -sin(pi x), with u = 0 at x = -1 and 1.

    Returns a source of tasks. Support x float32 [tasks, points, 3] are uniform points x and t with the viscosity; y
    float32 [tasks, points, 1] is 0, the wanted residual. The query set has ``queries`` other points.
    """

    def sample(split: str, step: int, tasks: range) -> fmaml.Task:
        keys = task_keys(seed, split, step, tasks, device)
        slots = torch.arange(1 + 2 * (points + queries), device=device)  # the viscosity, and the points
        u = uniform(fold(keys[:, None], slots)).float()
        viscosity = (LOW + (HIGH - LOW) * u[:, :1, None]).expand(-1, points + queries, -1)
        x, t = u[:, 1:].unflatten(1, (-1, 2)).unbind(-1)
        at = torch.stack([2 * x - 1, END * t], -1)
        both = torch.cat([at, viscosity], -1).split([points, queries], 1)
        return fmaml.Task(*(fmaml.Batch(x, torch.zeros_like(x[..., :1])) for x in both))

    about = {
        "data": "burgers",
        "task": "Burgers' equation",
        "protocol": f"Burgers' equation, {points} points without solution, fresh viscosities",
    }
    return Source(
        sample,
        (3,),
        1,
        about,
        save_solutions,
        criterion=fmaml.mse,  # needs outputs; `loss` is used instead
        metric=Metric("relative error", relative, ".4f", more_is_better=False),
        settings=(relative_error, mean_residual),
        loss=weighted_residual,
    )


def residual(apply: Apply, params: fmaml.Params, points: Tensor) -> tuple[Tensor, Tensor]:
    """The residual u_t + u u_x - nu u_xx, and u_x, both [n, 1], at points (x, t, nu) [n, 3]."""

    def u(points: Tensor) -> tuple[Tensor, Tensor]:
        value = apply(params, points)
        return value.sum(), value

    def slopes(points: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        along, value = grad(u, has_aux=True)(points)  # each point has its own row, so the sum's gradient has all slopes
        return along[:, 0].sum(), (along, value)

    bend, (along, value) = grad(slopes, has_aux=True)(points)
    u_x, u_t, u_xx, viscosity = along[:, :1], along[:, 1:2], bend[:, :1], points[:, 2:]
    return u_t + value * u_x - viscosity * u_xx, u_x


def weighted_residual(apply: Apply) -> LossFn:
    """The mean squared residual, weighted so that the steep front does not outweigh the rest of the domain.

    The weight is 1 / (1 + 0.1 |u_x|)^2 and counts as constant in all derivatives.
    """

    def loss(params: fmaml.Params, batch: fmaml.Batch) -> Tensor:
        wrong, slope = residual(apply, params, batch.x)
        return (wrong / (1 + FRONT * slope.detach().abs())).square().mean()

    return loss


def mean_residual(apply: Apply, criterion: Criterion) -> MetricFn:
    """The mean squared residual at the query points."""

    def metric_fn(params: fmaml.Params, task: fmaml.Task) -> Tensor:
        return residual(apply, params, task.query.x)[0].square().mean()

    return metric_fn


def relative(output: Tensor, truth: Tensor) -> Tensor:
    """The error |output - truth| / |truth|, with the L2 norm of all entries."""
    return (output - truth).norm() / truth.norm()


def relative_error(apply: Apply, criterion: Criterion) -> MetricFn:
    """The relative L2 error |u - exact| / |exact| on a grid of the whole domain."""

    def metric_fn(params: fmaml.Params, task: fmaml.Task) -> Tensor:
        grid = GRID.to(task.query.x)
        points = torch.cat([grid, task.query.x[0, 2].expand(len(grid), 1)], 1)
        return criterion(apply(params, points), exact(points).to(points.dtype))

    return metric_fn
