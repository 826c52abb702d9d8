"""The pure optimizers against torch.optim, step by step in float64, and as differentiable inner optimizers."""

import math
from typing import Any, cast

import pytest
import torch
from problems import F64, relative
from torch.func import grad

import fmaml
from fmaml.tree import global_norm, map_leaves

pytestmark = pytest.mark.core

STEPS = 40
CASES = {
    "sgd": (fmaml.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (fmaml.momentum(0.1, decay=0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
    "nesterov": (
        fmaml.momentum(0.1, decay=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True),
    ),
    "adam": (fmaml.adam(0.05, betas=(0.8, 0.95)), lambda p: torch.optim.Adam(p, 0.05, betas=(0.8, 0.95))),
    "adamw": (fmaml.adamw(0.05, weight_decay=0.3), lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.3)),
}


def theta0():
    return {"a": torch.randn(3, 4, dtype=F64), "b": torch.randn(5, dtype=F64), "unused": torch.randn(2, dtype=F64)}


def loss(theta):
    return theta["a"].sin().sum() + theta["b"].square().sum() + theta["b"].prod() + 0 * theta["unused"].sum()


@pytest.mark.parametrize("name", CASES)
def test_equals_torch_optim(name):
    optimizer, theirs = CASES[name]
    theta = theta0()
    params = {k: v.clone().requires_grad_() for k, v in theta.items()}
    reference, state = theirs(list(params.values())), optimizer.init(theta)
    for _ in range(STEPS):
        theta, state = optimizer.step(grad(loss)(theta), state, theta)
        reference.zero_grad()
        loss(params).backward()
        reference.step()
        assert relative(theta, map_leaves(torch.Tensor.detach, params)) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_theta_has_no_say(name):
    optimizer, theta = fmaml.chain(fmaml.clip_by_global_norm(0.5), CASES[name][0]), theta0()
    other, grads = dict(reversed(theta.items())), grad(loss)(theta)  # gradients in theta's first order
    state, other_state = optimizer.init(theta), optimizer.init(other)
    for _ in range(3):
        theta, state = optimizer.step(grads, state, theta)
        other, other_state = optimizer.step(grads, other_state, other)
        assert relative({key: other[key] for key in theta}, theta) < 1e-12


def test_cosine_equals_torch_schedule():
    p = torch.zeros((), requires_grad=True)
    reference = torch.optim.SGD([p], 0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 50, eta_min=0.02)
    ours = fmaml.cosine(0.3, 50, final=0.02)
    for step in range(51):
        assert float(ours(torch.tensor(float(step), dtype=F64))) == pytest.approx(schedule.get_last_lr()[0], abs=1e-14)
        reference.step()
        schedule.step()
    assert float(ours(torch.tensor(90.0))) == pytest.approx(0.02)


def test_warmup_rises_linearly_then_falls():
    ours = fmaml.cosine(1.0, 20, warmup=4)
    rates = [float(ours(torch.tensor(float(step)))) for step in range(21)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[20] == pytest.approx(0)


def test_schedule_moves_the_step():
    optimizer = fmaml.sgd(lambda count: 1.0 / (count + 1))
    theta, state = torch.zeros((), dtype=F64), optimizer.init(torch.zeros((), dtype=F64))
    seen = []
    for _ in range(4):
        theta, state = optimizer.step(-torch.ones((), dtype=F64), state, theta)
        seen.append(float(theta))
    assert seen == pytest.approx([1, 1.5, 1.5 + 1 / 3, 1.75 + 1 / 3])


@pytest.mark.parametrize("norm", [0.1, 1e6])
def test_clip_by_global_norm(norm):
    theta = theta0()
    optimizer = fmaml.chain(fmaml.clip_by_global_norm(norm), fmaml.sgd(1.0))
    grads = map_leaves(torch.randn_like, theta)
    new, _ = optimizer.step(grads, optimizer.init(theta), theta)
    step = map_leaves(torch.sub, theta, new)
    assert float(global_norm(step)) == pytest.approx(min(norm, float(global_norm(grads))), rel=1e-12)
    params = [p.clone().requires_grad_() for p in grads.values()]
    for p, g in zip(params, grads.values(), strict=True):
        p.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(params, norm)
    assert relative(step, [p.grad for p in params]) < 1e-5  # torch adds 1e-6 to the norm


def test_zero_gradient_keeps_clip_finite():
    theta = theta0()
    optimizer = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.adam(0.1))
    new, _ = optimizer.step(map_leaves(torch.zeros_like, theta), optimizer.init(theta), theta)
    assert relative(new, theta) == 0


@pytest.mark.parametrize("name", CASES)
def test_differentiable_with_unused_parameters(name):
    """Three steps as an inner loop: the derivative is finite though "unused" has a zero second moment, and right."""
    optimizer, _ = CASES[name]

    def unrolled(theta):
        state = optimizer.init(theta)
        for _ in range(3):
            theta, state = optimizer.step(grad(loss)(theta), state, theta)
        return loss(theta)

    theta = theta0()
    theta = {**theta, "a": theta["a"] / 10, "b": theta["b"] / 10}
    grads = grad(unrolled)(theta)
    assert all(g.isfinite().all() for g in grads.values())
    v = map_leaves(torch.randn_like, theta)
    v = map_leaves(lambda d: d / global_norm(v), v)

    def central(h):
        return (unrolled(shift(h)) - unrolled(shift(-h))) / (2 * h)

    def shift(h):
        return map_leaves(lambda p, d: p + h * d, theta, v)

    numeric = (4 * central(1e-4) - central(2e-4)) / 3
    assert relative(sum((grads[k] * v[k]).sum() for k in v), numeric) < 1e-7


def test_adam_first_step_is_lr_whatever_the_gradient():
    optimizer = fmaml.adam(0.01, eps=1e-30)
    theta = {"p": torch.zeros(4, dtype=F64)}
    grads = {"p": torch.tensor([1e-9, -1e-3, 1.0, -1e6], dtype=F64)}
    new, _ = optimizer.step(grads, optimizer.init(theta), theta)
    assert new["p"].tolist() == pytest.approx([-0.01, 0.01, -0.01, 0.01], rel=1e-9)


def test_chain_refuses_an_optimizer_before_the_end():
    with pytest.raises(ValueError, match="put it last"):
        fmaml.chain(cast(Any, fmaml.sgd(0.1)), fmaml.clip_by_global_norm(1.0))


def test_chain_of_transforms_is_a_transform():
    assert isinstance(fmaml.chain(fmaml.clip_by_global_norm(1.0)), fmaml.Transform)
    assert isinstance(fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.sgd(1.0)), fmaml.Optimizer)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup = 10 must be less than steps = 10"):
        fmaml.cosine(1.0, 10, warmup=10)


def test_float32_adam_keeps_its_bias_correction():
    """The count is float64: 1 - 0.999**t in float32 would be 6e-5 off at the first step."""
    optimizer = fmaml.adam(1.0, eps=1e-30)
    theta = {"p": torch.zeros(1)}
    new, state = optimizer.step({"p": torch.ones(1)}, optimizer.init(theta), theta)
    assert new["p"].dtype == torch.float32
    assert float(new["p"]) == pytest.approx(-1.0, abs=1e-6)
    assert math.isclose(float(state[0]["count"]), 1.0)


def test_a_scalar_parameter_keeps_its_type():
    """A schedule gives a float64 scalar, which would turn a float32 scalar into float64."""
    optimizer = fmaml.adam(fmaml.cosine(0.1, 10))
    theta = {"rate": torch.tensor(1.0), "p": torch.ones(2)}
    new, _ = optimizer.step(map_leaves(torch.ones_like, theta), optimizer.init(theta), theta)
    assert {leaf.dtype for leaf in new.values()} == {torch.float32}


def test_clipping_is_differentiable():
    """The map g -> g * max / |g| has the Jacobian (I - u u') * max / |g|, u = g / |g|; at 0 it stays finite."""
    optimizer = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.sgd(1.0))

    def clipped(g):
        return -optimizer.step({"p": g}, optimizer.init({"p": g}), {"p": torch.zeros_like(g)})[0]["p"]

    g = torch.tensor([3.0, 4.0], dtype=F64)
    u = g / 5
    assert relative(torch.func.jacrev(clipped)(g), (torch.eye(2, dtype=F64) - torch.outer(u, u)) / 5) < 1e-14
    assert torch.func.jacrev(clipped)(torch.zeros(2, dtype=F64)).isfinite().all()


def test_slips_in_a_script_are_told():
    with pytest.raises(ValueError, match=r"chain: no parts; give transforms"):
        fmaml.chain()
    with pytest.raises(ValueError, match=r"theta has no tensors: nothing to learn"):
        fmaml.adam(0.1).init({})
    batch = fmaml.Batch(torch.ones(1), torch.ones(1))
    for walk in (fmaml.adapt, fmaml.trajectory):
        with pytest.raises(ValueError, match="steps = -1: must be 0 or more"):
            walk(lambda params, batch: params["a"].sum(), theta0(), batch, 0.1, steps=-1)
        with pytest.raises(ValueError, match=r"params = \{\}: nothing to adapt"):
            walk(lambda params, batch: torch.zeros(()), {}, batch, 0.1, steps=1)
    remat = fmaml.maml(lambda params, batch: params["a"].sum(), inner_lr=0.1, steps=-1, remat=True)
    with pytest.raises(ValueError, match="steps = -1: must be 0 or more"):
        remat.loss(theta0(), fmaml.Task(batch, batch))
