"""The meta-gradient against what it must be: closed forms, exact arithmetic, finite differences, plain autograd."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from problems import (
    F64,
    NORMS,
    POOLS,
    SHAPES,
    adapted,
    all_ways_agree,
    contraction,
    conv4_agrees,
    doubled,
    image_tasks,
    quadratic,
    quadratic_tasks,
    regression_tasks,
    relative,
    residual,
)
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import fmaml
from fmaml import Batch, Task
from fmaml.tree import global_norm, leaves, map_leaves, take

pytestmark = pytest.mark.core

STEPS = [0, 1, 2, 3, 5, 10, 20]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("lr", [0.1, 0.9, 1.0])  # 1.0 with eigenvalues to 2: at the edge of divergence
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_quadratic_closed_form(steps, lr, batching):
    tasks, theta = quadratic_tasks(7, 5), torch.randn(5, dtype=F64)
    algorithm = fmaml.maml(quadratic, inner_lr=lr, steps=steps)
    phi = adapted(theta, tasks, lr, steps)
    expected = (contraction(tasks, lr, steps) @ residual(phi, tasks)[..., None])[..., 0].mean(0)

    grads, metrics = fmaml.meta_grad(algorithm, {"p": theta}, tasks, batching=batching)
    loss, _ = fmaml.meta_loss(algorithm, {"p": theta}, tasks, batching=batching)
    query = 0.5 * ((phi - tasks.query.y) * residual(phi, tasks)).sum(-1)

    assert relative(vmap(algorithm.adapt, (None, 0))({"p": theta}, tasks.support), {"p": phi}) < 1e-13
    assert relative(grads, {"p": expected}) < 1e-13
    assert relative(loss, query.mean()) < 1e-13
    assert relative(metrics["query_loss"], query.mean()) < 1e-13


@pytest.mark.parametrize("steps", STEPS)
def test_first_order_closed_form(steps):
    tasks, theta = quadratic_tasks(7, 5), torch.randn(5, dtype=F64)
    algorithm = fmaml.maml(quadratic, inner_lr=0.4, steps=steps, first_order=True)
    expected = residual(adapted(theta, tasks, 0.4, steps), tasks).mean(0)
    assert relative(fmaml.meta_grad(algorithm, {"p": theta}, tasks)[0], {"p": expected}) < 1e-13


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_meta_hessian_closed_form(steps):
    """Third order and beyond: the gradient of the meta-gradient is (I-aA)^K B (I-aA)^K."""
    tasks, theta = quadratic_tasks(1, 4), {"p": torch.randn(4, dtype=F64)}
    algorithm = fmaml.maml(quadratic, inner_lr=0.3, steps=steps)
    m = contraction(tasks, 0.3, steps)[0]
    v = torch.randn(4, dtype=F64)
    product = grad(lambda t: fmaml.meta_grad(algorithm, t, tasks)[0]["p"] @ v)(theta)["p"]
    assert relative(product, m @ tasks.query.x[0] @ m @ v) < 1e-13


def test_exact_integer_quadratics():
    """Integers and alpha = 1/8: every intermediate value is a dyadic rational, so float64 must be exact."""
    cases = 0
    for dim in (1, 2, 3):
        for steps in (1, 2, 3, 4, 5):
            a, b = (torch.randint(-3, 4, (70, dim, dim), dtype=F64) for _ in "ab")
            a, b = a + a.mT, b + b.mT
            c, q = (torch.randint(-5, 6, (70, dim), dtype=F64) for _ in "cq")
            theta = torch.randint(-5, 6, (dim,), dtype=F64)
            tasks = Task(Batch(a, c), Batch(b, q))
            algorithm = fmaml.maml(quadratic, inner_lr=0.125, steps=steps)
            grads, _ = vmap(grad(algorithm.loss, has_aux=True), (None, 0))({"p": theta}, tasks)
            for i in range(70):
                task = take(tasks, i)
                assert [Fraction(v) for v in grads["p"][i].tolist()] == rational_maml(theta, task, steps)
                cases += 1
    assert cases == 1050


def rational_maml(theta: Tensor, task: Task, steps: int) -> list[Fraction]:
    """The meta-gradient by rational arithmetic."""
    a, b = ([[Fraction(v) for v in row] for row in m.tolist()] for m in (task.support.x, task.query.x))
    c, q, phi = ([Fraction(v) for v in t.tolist()] for t in (task.support.y, task.query.y, theta))

    def times(m: list, v: list) -> list:
        return [sum(x * y for x, y in zip(row, v, strict=True)) for row in m]

    def minus(u: list, v: list, scale: Fraction = Fraction(1)) -> list:
        return [x - scale * y for x, y in zip(u, v, strict=True)]

    eighth = Fraction(1, 8)
    for _ in range(steps):
        phi = minus(phi, times(a, minus(phi, c)), eighth)
    g = times(b, minus(phi, q))
    for _ in range(steps):
        g = minus(g, times(a, g), eighth)
    return g


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", ["mlp", "conv4"])
def test_finite_differences(name, steps):
    """Central differences, once Richardson-extrapolated, along random directions; smooth networks only."""
    if name == "mlp":
        model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[8, 8], activation="tanh")
        tasks, criterion = regression_tasks(4, 3, 2), fmaml.mse
        apply = model.apply
    else:
        model = fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8)
        tasks, criterion = image_tasks(2, (1, 16, 16)), fmaml.cross_entropy
        apply = smooth(model)
    theta = doubled(model.init(torch.Generator().manual_seed(0)))
    algorithm = fmaml.maml(fmaml.supervised(apply, criterion), inner_lr=0.05, steps=steps)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)

    for _ in range(3):
        v = direction(theta)

        def along(h, v=v):
            return fmaml.meta_loss(algorithm, map_leaves(lambda p, d: p + h * d, theta, v), tasks)[0]

        def central(h, along=along):
            return (along(h) - along(-h)) / (2 * h)

        numeric = (4 * central(3e-4) - central(6e-4)) / 3
        analytic = sum((grads[k] * v[k]).sum() for k in grads)
        assert relative(analytic, numeric) < 1e-9


def direction(theta):
    """A random tree of norm 1."""
    v = map_leaves(torch.randn_like, theta)
    norm = global_norm(v)
    return map_leaves(lambda d: d / norm, v)


class Softplus(TorchFunctionMode):
    """Softplus wherever relu is called, so that differences mean something."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (F.softplus if func is torch.relu else func)(*args, **(kwargs or {}))


def smooth(model):
    def apply(params, x):
        with Softplus():
            return model.apply(params, x)

    return apply


def test_reverse_equals_forward_mode():
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=[8, 8], activation="tanh")
    tasks, theta = regression_tasks(4, 3, 2), doubled(model.init(torch.Generator().manual_seed(0)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.05, steps=3)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    v = map_leaves(torch.randn_like, theta)
    forward = jvp(lambda t: fmaml.meta_loss(algorithm, t, tasks)[0], (theta,), (v,))[1]
    assert relative(sum((grads[k] * v[k]).sum() for k in v), forward) < 1e-12


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_equals_plain_autograd(steps, first_order):
    """The course's own way: a loop over tasks, `create_graph`, and one backward at the end."""
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=8)
    tasks, theta = image_tasks(3, (1, 28, 28)), doubled(model.init(torch.Generator().manual_seed(0)))
    loss_fn = fmaml.supervised(model.apply, fmaml.cross_entropy)
    params = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = torch.zeros((), dtype=F64)
    for i in range(3):
        task, phi = take(tasks, i), params
        for _ in range(steps):
            inner = torch.autograd.grad(loss_fn(phi, task.support), list(phi.values()), create_graph=not first_order)
            phi = {name: p - 0.4 * g for (name, p), g in zip(phi.items(), inner, strict=True)}
        total = total + loss_fn(phi, task.query) / 3
    total.backward()
    algorithm = fmaml.maml(loss_fn, inner_lr=0.4, steps=steps, first_order=first_order)
    grads, metrics = fmaml.meta_grad(algorithm, theta, tasks)
    assert relative(grads, {name: p.grad for name, p in params.items()}) < 1e-12
    assert relative(metrics["query_loss"], total.detach()) < 1e-13


HALF = [  # of conv4's grid, which `tests/nn/test_conv4_grid.py` has in full
    (pool, norm, SHAPES[(i + j) % 2]) for i, pool in enumerate(POOLS) for j, norm in enumerate(NORMS)
]


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(("pool", "norm", "inputs"), HALF)
def test_vmap_loop_chunks_agree_conv4(pool, norm, inputs, first_order):
    conv4_agrees(pool, norm, inputs, first_order)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("criterion", [fmaml.mse, fmaml.cross_entropy])
def test_vmap_loop_chunks_agree_mlp(criterion, activation, first_order):
    model = fmaml.mlp(inputs=(4,), outputs=3, activation=activation)
    tasks = regression_tasks(5, 4, 3) if criterion is fmaml.mse else image_tasks(5, (4,))
    all_ways_agree(model, tasks, criterion, first_order)


def test_first_order_approaches_maml_with_slope_one():
    model = fmaml.mlp(inputs=(3,), outputs=2, activation="tanh")
    tasks, theta = regression_tasks(4, 3, 2), doubled(model.init(torch.Generator().manual_seed(0)))
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)

    def gap(alpha):
        both = [fmaml.maml(loss_fn, inner_lr=alpha, steps=1, first_order=order) for order in (False, True)]
        return relative(*(fmaml.meta_grad(algorithm, theta, tasks)[0] for algorithm in both))

    assert gap(0.1) > 1e-3  # second order is no decoration
    slope = math.log10(gap(1e-3) / gap(1e-4))
    assert slope == pytest.approx(1.0, abs=0.02)


def test_invariances():
    model = fmaml.mlp(inputs=(3,), outputs=2, activation="tanh")
    tasks, theta = regression_tasks(4, 3, 2), doubled(model.init(torch.Generator().manual_seed(0)))
    loss_fn = fmaml.supervised(model.apply, fmaml.mse)
    algorithm = fmaml.maml(loss_fn, inner_lr=0.1, steps=2)
    meta_grad = partial(fmaml.meta_grad, algorithm, theta)
    one = map_leaves(lambda t: t[:1], tasks)

    shuffled = map_leaves(lambda t: t[[2, 0, 3, 1]], tasks)
    assert relative(meta_grad(shuffled)[0], meta_grad(tasks)[0]) < 1e-14
    same = map_leaves(lambda t: t.expand(4, *t.shape[1:]), one)
    assert relative(meta_grad(same)[0], meta_grad(one)[0]) < 1e-14

    no_steps = fmaml.maml(loss_fn, inner_lr=0.1, steps=0)
    plain = grad(loss_fn)(theta, take(one, 0).query)
    assert relative(fmaml.meta_grad(no_steps, theta, one)[0], plain) < 1e-14

    scaled = fmaml.maml(lambda p, b: 4 * loss_fn(p, b), inner_lr=0.025, steps=2)
    expected = map_leaves(lambda g: 4 * g, meta_grad(tasks)[0])
    assert relative(fmaml.meta_grad(scaled, theta, tasks)[0], expected) < 1e-14


@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_pure_and_repeatable(batching):
    """A call leaves its inputs bit-identical and gives the same bits twice."""
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=8)
    tasks = map_leaves(lambda t: t.float() if t.is_floating_point() else t, image_tasks(4, (1, 28, 28)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.4, steps=2)
    optimizer = fmaml.chain(fmaml.clip_by_global_norm(1.0), fmaml.adamw(fmaml.cosine(1e-3, 10)))
    state = fmaml.init_state(algorithm, optimizer, model.init(torch.Generator().manual_seed(0)))
    before = map_leaves(lambda t: t.clone() if isinstance(t, Tensor) else t, (state, tasks))

    first, metrics = fmaml.meta_step(algorithm, optimizer, state, tasks, batching=batching)
    second, again = fmaml.meta_step(algorithm, optimizer, state, tasks, batching=batching)

    assert bits(before) == bits((state, tasks))
    assert bits((first, metrics)) == bits((second, again))
    assert bits(first.theta) != bits(state.theta)


def bits(tree) -> list:
    return [leaf.numpy().tobytes() if isinstance(leaf, Tensor) else leaf for leaf in leaves(tree)]
