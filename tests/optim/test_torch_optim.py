"""Torch's optimizers as outer optimizers: bit for bit the loop with ``step()``, and pure."""

import pickle
from functools import partial

import cloudpickle
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

import fmaml
from fmaml.tree import leaves, map_leaves

pytestmark = pytest.mark.core

STEPS = 20
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "momentum with dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "Adam": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "fused AdamW": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.01}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.01}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1}),
    "Muon": (torch.optim.Muon, {"lr": 0.02}),
}
SCHEDULERS = {
    "none": None,
    "OneCycle": partial(OneCycleLR, max_lr=0.1, total_steps=STEPS + 1),
    "cosine": partial(CosineAnnealingLR, T_max=7),
    "steps": partial(StepLR, step_size=6, gamma=0.5),
}


def theta0(flat: bool) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    theta = {"a": torch.randn(3, 4, generator=g), "c": torch.randn(4, 4, generator=g)}
    return theta | ({"b": torch.randn(5, generator=g)} if flat else {})


def gradient(theta: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    return {name: (value * (1 + step % 3)).sin() + 0.1 * value for name, value in theta.items()}


@pytest.mark.parametrize("schedule", SCHEDULERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_torchs_own(name, schedule):
    make, settings = OPTIMIZERS[name]
    scheduler = SCHEDULERS[schedule]
    theta = theta0(flat=name != "Muon")  # which takes matrices alone
    if schedule == "OneCycle" and name in ("Rprop", "Adagrad", "Muon"):
        settings = dict(settings)
        scheduler = partial(OneCycleLR, max_lr=0.1, total_steps=STEPS + 1, cycle_momentum=False)
    if schedule == "OneCycle" and name == "SGD":
        scheduler = partial(OneCycleLR, max_lr=0.1, total_steps=STEPS + 1, cycle_momentum=False)
    params = {key: value.clone().requires_grad_() for key, value in theta.items()}
    theirs = make(list(params.values()), **settings)
    their_schedule = scheduler(theirs) if scheduler else None
    ours = fmaml.from_torch(make, scheduler=scheduler, **settings)
    state = ours.init(theta)
    for step in range(STEPS):
        for key, value in gradient({key: p.detach() for key, p in params.items()}, step).items():
            params[key].grad = value
        theirs.step()
        if their_schedule:
            their_schedule.step()
        theta, state = ours.step(gradient(theta, step), state, theta)
        assert all(torch.equal(theta[key], params[key]) for key in theta), step
    assert int(state.steps) == STEPS


@pytest.mark.parametrize("name", ["NAdam", "Adam", "Rprop"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_step_is_torchs_own_in_any_precision(name, dtype):
    """NAdam keeps a number in float32 beside parameters in float64."""
    make, settings = OPTIMIZERS[name]
    theta = {key: value.to(dtype) for key, value in theta0(flat=True).items()}
    params = {key: value.clone().requires_grad_() for key, value in theta.items()}
    theirs, ours = make(list(params.values()), **settings), fmaml.from_torch(make, **settings)
    state = ours.init(theta)
    for step in range(STEPS):
        for key, value in gradient({key: p.detach() for key, p in params.items()}, step).items():
            params[key].grad = value
        theirs.step()
        theta, state = ours.step(gradient(theta, step), state, theta)
    assert all(torch.equal(theta[key], params[key]) for key in theta)


def test_an_update_is_a_function_of_its_arguments():
    optimizer = fmaml.from_torch(torch.optim.AdamW, scheduler=SCHEDULERS["OneCycle"], lr=0.01)
    theta = theta0(True)
    first = optimizer.step(gradient(theta, 0), optimizer.init(theta), theta)
    kept = map_leaves(torch.clone, first)
    second = [optimizer.step(gradient(first[0], 1), first[1], first[0]) for _ in range(2)]
    copied = pickle.loads(cloudpickle.dumps(optimizer))  # which has never seen theta
    second.append(copied.step(gradient(first[0], 1), first[1], first[0]))
    for other in second[1:]:
        assert all(torch.equal(a, b) for a, b in zip(leaves(second[0]), leaves(other), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(leaves(kept), leaves(first), strict=True))


def test_it_trains():
    model = fmaml.mlp(inputs=(1,), outputs=1, hidden=[8])
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.01, steps=1)
    optimizer = fmaml.average_params(fmaml.from_torch(torch.optim.AdamW, lr=0.01), decay=0.5)
    state = fmaml.init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    x = torch.linspace(-1, 1, 10).reshape(1, 10, 1)
    tasks = fmaml.Task(fmaml.Batch(x, x.sin()), fmaml.Batch(x, x.sin()))
    losses = []
    for _ in range(30):
        state, metrics = fmaml.meta_step(algorithm, optimizer, state, tasks)
        losses.append(float(metrics["query_loss"]))
    assert losses[-1] < losses[0] / 4


def test_the_average_follows_theta():
    """Weighted by 0.9^k, k steps later, and not by the theta that it began at."""
    optimizer, theta = fmaml.average_params(fmaml.sgd(0.1), decay=0.9), theta0(True)
    state, passed = optimizer.init(theta), []
    for step in range(5):
        theta, state = optimizer.step(gradient(theta, step), state, theta)
        passed.append(theta)
    weights = torch.tensor([0.9**k for k in reversed(range(5))])
    for key, value in state.average.items():
        expected = torch.tensordot(weights / weights.sum(), torch.stack([theta[key] for theta in passed]), 1)
        assert torch.allclose(value, expected, rtol=1e-6)


def test_what_needs_more_than_gradients_is_refused():
    theta = theta0(True)
    with pytest.raises(ValueError, match="LBFGS or its schedule needs more than gradients"):
        fmaml.from_torch(torch.optim.LBFGS, lr=0.1).init(theta)
    with pytest.raises(ValueError, match=r"SparseAdam or its schedule needs more than gradients \(SparseAdam does not"):
        fmaml.from_torch(torch.optim.SparseAdam, lr=0.1).init(theta)
    with pytest.raises(ValueError, match="SGD or its schedule needs more than gradients"):
        fmaml.from_torch(torch.optim.SGD, scheduler=ReduceLROnPlateau, lr=0.1).init(theta)


def test_a_step_that_is_differentiated_is_refused():
    optimizer, theta = fmaml.from_torch(torch.optim.SGD, lr=0.1), {"p": torch.tensor(1.0)}
    state = optimizer.init(theta)
    with pytest.raises(ValueError, match=r"has no derivative; use fmaml\.adam"):
        torch.func.grad(lambda p: optimizer.step({"p": p}, state, theta)[0]["p"])(torch.tensor(1.0))
