"""Beyond the second derivative: gradients through whole meta-steps, against finite differences and the other mode."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from problems import F64, doubled, image_tasks, relative
from torch import Tensor, nn
from torch.func import grad, jvp

import fmaml
from fmaml import Batch, Model, Task
from fmaml.nn import layers as layers_file
from fmaml.nn import mlp as mlp_file
from fmaml.torch_fixes import block as block_file
from fmaml.torch_fixes import layout, norms

STEP = 1e-6  # of the finite differences


def passages() -> Task:
    return Task(*(Batch(torch.randint(0, 5, (3, n, 8)), torch.randint(0, 5, (3, n, 8))) for n in (2, 3)))


def conv4_case(shape: tuple[int, ...], **options: Any) -> tuple[Model, Callable[[], Task]]:
    return fmaml.conv4(inputs=shape, outputs=3, width=8, **options), lambda: image_tasks(3, shape)


def module(*layers: nn.Module) -> tuple[Model, Callable[[], Task]]:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    network = nn.Sequential(*layers, head)
    network(torch.rand(3, 2, 6, 6))
    return fmaml.from_module(network), lambda: image_tasks(3, (2, 6, 6))


NETWORKS = {
    **{f"conv4-stride-{norm}": conv4_case((1, 28, 28), norm=norm) for norm in ("batch", "group", "layer", "none")},
    **{f"conv4-max-{norm}": conv4_case((1, 20, 20), pool="max", norm=norm) for norm in ("batch", "layer", "none")},
    "resnet12": (fmaml.resnet12(inputs=(1, 20, 20), outputs=3, width=2), lambda: image_tasks(3, (1, 20, 20))),
    "mlp": (fmaml.mlp(inputs=(4,), outputs=3, hidden=[8, 8]), lambda: image_tasks(3, (4,))),
    "transformer": (fmaml.transformer(inputs=(8,), outputs=5, width=8, heads=2, layers=1), passages),
    "module-batch": module(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Softplus()),
    "module-instance": module(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Softplus()),
    "module-layer": module(nn.Conv2d(2, 4, 3), nn.LayerNorm([4, 4, 4]), nn.Softplus()),
}


def loss_after_meta_steps(name: str, meta_steps: int, batching: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The meta-loss after meta-steps, as a function of (outer rate, inner rate, distance along a direction)."""
    model, tasks_of = NETWORKS[name]
    tasks, loss_fn = tasks_of(), fmaml.supervised(model.apply, fmaml.cross_entropy)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    params = {key: value + 0.05 * torch.randn_like(value) for key, value in params.items()}
    direction = {key: 0.1 * torch.randn_like(value) for key, value in params.items()}
    options: dict[str, Any] = {"batching": batching}

    def loss(at: Tensor) -> Tensor:
        outer_lr, inner_lr, distance = at
        algorithm, optimizer = fmaml.maml(loss_fn, inner_lr=inner_lr, steps=1), fmaml.sgd(lambda step: outer_lr)
        theta = {key: value + distance * direction[key] for key, value in params.items()}
        state = fmaml.MetaState(theta, optimizer.init(theta), 0)
        for _ in range(meta_steps):
            state, _ = fmaml.meta_step(algorithm, optimizer, state, tasks, **options)
        return fmaml.meta_loss(algorithm, state.theta, tasks, **options)[0]

    return loss, torch.tensor([0.02, 0.05, 0.0], dtype=F64)


@pytest.fixture(autouse=True)
def _smooth(monkeypatch):
    """No rectifiers: a step across a kink, where an inner gradient jumps, would spoil a finite difference."""
    smooth = SimpleNamespace(**{**vars(torch), "relu": nn.functional.softplus})  # torch itself is the compiler's too
    monkeypatch.setattr(mlp_file, "torch", smooth)
    softplus = {**vars(block_file), "leaky_relu": lambda x, slope: nn.functional.softplus(x)}
    monkeypatch.setattr(layers_file, "block", SimpleNamespace(**softplus))


def finite_differences(fn: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    return torch.stack([(fn(at + STEP * e) - fn(at - STEP * e)) / (2 * STEP) for e in torch.eye(len(at), dtype=F64)])


@pytest.mark.parametrize("meta_steps", [1, pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"resnet12"}))  # so many kinks that a difference crosses some
def test_hypergradients_are_those_of_finite_differences(name, meta_steps):
    loss, at = loss_after_meta_steps(name, meta_steps, "vmap")
    found = grad(loss)(at)
    assert relative(found, finite_differences(loss, at)) < 1e-6
    tangent = torch.tensor([0.3, -0.7, 1.1], dtype=F64)
    assert relative(jvp(loss, (at,), (tangent,))[1], found @ tangent) < 1e-10


@pytest.mark.parametrize("name", NETWORKS)
def test_vmapped_equals_looped_to_third_order(name):
    found = []
    for batching in ("vmap", "loop"):
        torch.manual_seed(0)
        loss, at = loss_after_meta_steps(name, 2, batching)
        found.append(grad(loss)(at))
    assert relative(*found) < 1e-10


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_the_operator_for_large_tasks_is_right_in_both_modes_too(large, monkeypatch):
    for place, name in ((layout, "LARGE_IMAGES"), (norms, "LARGE_FEATURES")):
        monkeypatch.setattr(place, name, 0 if large else 10**9)
    loss, at = loss_after_meta_steps("conv4-stride-batch", 2, "vmap")
    found, tangent = grad(loss)(at), torch.tensor([0.3, -0.7, 1.1], dtype=F64)
    assert relative(found, finite_differences(loss, at)) < 1e-6
    assert relative(jvp(loss, (at,), (tangent,))[1], found @ tangent) < 1e-10


def test_a_hessian_of_the_meta_loss_from_outside_is_exact():
    """By backward() twice, where torch.func sees nothing of how often it is differentiated."""
    model, tasks_of = NETWORKS["conv4-stride-batch"]
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.05, steps=1)
    params, tasks = doubled(model.init(torch.Generator().manual_seed(0))), tasks_of()
    direction = {key: torch.randn_like(value) for key, value in params.items()}
    distance = torch.zeros((), dtype=F64, requires_grad=True)

    def loss(distance: Tensor) -> Tensor:
        theta = {key: value + distance * direction[key] for key, value in params.items()}
        return fmaml.meta_loss(algorithm, theta, tasks)[0]

    (slope,) = torch.autograd.grad(loss(distance), distance, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, distance)
    slopes = [grad(loss)(torch.tensor(sign * STEP, dtype=F64)) for sign in (1, -1)]
    assert relative(curvature, (slopes[0] - slopes[1]) / (2 * STEP)) < 1e-6
