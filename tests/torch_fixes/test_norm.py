"""Batch norm of many tasks as one operator, and their layout: to every order the numbers of plain operations."""

import pytest
import torch
from problems import F64, doubled, image_tasks, relative, weighted
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import debug_unwrap, grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml.torch_fixes import batch_norm, layout, norms
from fmaml.torch_fixes.block import norm_relu_pool

EPS = 1e-5
SHAPES = {"images": (3, 2, 4, 5), "vectors": (5, 2), "one pixel": (3, 2, 1, 1), "volumes": (2, 2, 2, 3, 2)}


@pytest.fixture(autouse=True)
def every_size_is_large(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    monkeypatch.setattr(norms, "LARGE_FEATURES", 0)


def plain(x, scale, shift):
    """The definition."""
    axes, shape = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + EPS).rsqrt() * scale.view(shape) + shift.view(shape)


def operator(x, scale, shift):
    return batch_norm.batch_norm_of_tasks(x, scale, shift, EPS)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_value_and_three_orders_of_derivatives(shape):
    x, scale, shift, g = torch.randn(shape), torch.randn(2), torch.randn(2), torch.randn(shape)
    x, scale, shift, g = (t.to(F64).requires_grad_() for t in (x, scale, shift, g))
    assert relative(operator(x, scale, shift).detach(), plain(x, scale, shift).detach()) < 1e-13
    assert gradcheck(operator, (x, scale, shift))
    assert gradgradcheck(operator, (x, scale, shift), (g,))

    g = g.detach()

    def third(fn):
        def first(x, scale, shift):
            return sum((d**2).sum() for d in grad(lambda *a: (fn(*a).sin() * g).sum(), (0, 1, 2))(x, scale, shift))

        def second(x, scale, shift):
            return sum((d**2).sum() for d in grad(first, (0, 1, 2))(x, scale, shift))

        return grad(second, (0, 1, 2))(x.detach(), scale.detach(), shift.detach())

    assert relative(third(operator), third(plain)) < 1e-9


@pytest.mark.parametrize("dims", [(0, 0, 0), (1, 0, None), (2, None, 0), (0, None, None), (None, 0, 0)], ids=str)
def test_many_tasks_are_each_alone(dims):
    """To second order, wherever the tasks' axis is, and whether it is the gradient or the vmap that stands inside."""
    sizes = (3, 2, 4, 4), (2,), (2,)
    args = [torch.randn(size, dtype=F64) for size in sizes]
    args = [
        a if d is None else torch.randn(6, *a.shape, dtype=F64).movedim(0, d) for a, d in zip(args, dims, strict=True)
    ]
    g = torch.randn(3, 2, 4, 4, dtype=F64)

    def twice(fn):
        def inner(*a):
            moved = [
                p - 0.1 * d for p, d in zip(a, grad(lambda *a: (fn(*a).sin() * g).sum(), (0, 1, 2))(*a), strict=True)
            ]
            return (fn(*moved) * g).sum()

        return inner

    def one(i):
        return [a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)]

    each = [grad(twice(plain), (0, 1, 2))(*one(i)) for i in range(6)]
    together = vmap(grad(twice(operator), (0, 1, 2)), dims)(*args)
    for i in range(6):
        assert relative([t[i] for t in together], each[i]) < 1e-11
    outside = grad(lambda *a: vmap(twice(operator), dims)(*a).sum(), (0, 1, 2))(*args)
    by_hand = [
        sum(e[k] for e in each) if d is None else torch.stack([e[k] for e in each], d) for k, d in enumerate(dims)
    ]
    assert relative(outside, by_hand) < 1e-11


MODULE = nn.Sequential(
    *(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(4 * 49, 3)),
)
NETWORKS = {
    "strided": (fmaml.conv4(inputs=(1, 28, 28), outputs=3, width=4), (1, 28, 28)),
    "odd, three colours": (fmaml.conv4(inputs=(3, 17, 19), outputs=3, width=5), (3, 17, 19)),
    "max-pooled": (fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=4, pool="max"), (1, 16, 16)),
    "group norm": (fmaml.conv4(inputs=(1, 32, 32), outputs=3, width=8, norm="group"), (1, 32, 32)),
    "without norm": (fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=4, norm="none"), (1, 16, 16)),
    "signals": (fmaml.conv1d(inputs=(2, 20), outputs=3, width=4, layers=3), (2, 20)),
    "a module": (fmaml.from_module(MODULE), (1, 16, 16)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"batching": "loop"}], ids=str)
def test_networks_are_the_same_as_in_the_usual_layout(name, options, monkeypatch):
    """The meta-gradient through two inner steps, and each query judged alone: a vmap in a vmap."""
    model, shape = NETWORKS[name]
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(5, shape)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    alone = fmaml.inductive(model.apply, fmaml.cross_entropy)

    def found(**options):
        grads, metrics = fmaml.meta_grad(algorithm, theta, tasks, **options)
        return grads, metrics, fmaml.evaluate(algorithm, alone, theta, tasks, **options)

    ours = found(**options)
    monkeypatch.setattr(layout, "LARGE_IMAGES", 10**9)
    monkeypatch.setattr(norms, "LARGE_FEATURES", 10**9)
    assert relative(ours, found(batching="loop")) < 1e-11


def test_images_lie_channels_last_tasks_and_channels_together():
    seen = []

    def look(x):
        seen.append(debug_unwrap(layout.channels_last(x)))
        return x.sum()

    vmap(grad(look))(torch.rand(5, 4, 3, 6, 7))  # [tasks, n, channels, height, width]
    (laid,) = seen
    assert laid.shape == (4, 5, 3, 6, 7)
    assert laid.stride() == (5 * 3 * 6 * 7, 3, 1, 5 * 3 * 7, 5 * 3)


@pytest.mark.parametrize("tasks", [1, 2])
def test_only_large_uncompiled_tasks_at_once_take_the_operator(tasks, monkeypatch):
    calls = []
    monkeypatch.setattr(
        norms,
        "batch_norm_of_tasks",
        lambda x, *rest: calls.append(x.shape) or F.batch_norm(x, None, None, training=True),
    )
    monkeypatch.setattr(norms, "LARGE_FEATURES", 2 * 4 * 3 * 5 * 5 - 1)
    scale, shift = torch.ones(3), torch.zeros(3)
    vmap(lambda x: norms.batch_norm(x, scale, shift))(torch.rand(tasks, 4, 3, 5, 5))
    norms.batch_norm(torch.rand(8, 3, 5, 5), scale, shift)
    assert calls == [(4, 3, 5, 5)] * (tasks == 2)


def test_one_number_a_channel_is_refused_as_by_torch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        vmap(lambda x: norms.batch_norm(x, torch.ones(3), torch.zeros(3)))(torch.rand(5, 1, 3, 1, 1))


def test_a_compiler_lays_out_by_itself():
    """Traced into one graph without the operator, and equal to it."""
    model, shape = NETWORKS["max-pooled"]
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(3, shape)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    traced = torch.compile(lambda theta: fmaml.meta_grad(algorithm, theta, tasks)[0], fullgraph=True, backend="eager")
    assert relative(traced(theta), fmaml.meta_grad(algorithm, theta, tasks)[0]) < 1e-11


def test_gradients_keep_the_layout():
    """Else the copies that it saves would be made on the way back: seen by the tasks' own gradients, vmapped."""
    seen = []

    def loss(x):
        (gx,) = torch.func.vjp(lambda x: norms.batch_norm(x, torch.ones(3), torch.zeros(3)), x)[1](x.square())
        seen.append(debug_unwrap(gx))
        return gx.sum()

    vmap(lambda x: loss(layout.channels_last(x)))(torch.rand(5, 4, 3, 6, 7))
    (gx,) = seen
    assert gx.stride() == (5 * 3 * 6 * 7, 3, 1, 5 * 3 * 7, 5 * 3)


def test_images_in_bfloat16_are_normalised_in_float32():
    """As after a convolution under autocast: the values and the gradients of the same images in float32."""
    x, scale, shift = torch.randn(3, 6, 8, 8).to(memory_format=torch.channels_last), torch.rand(6) + 0.5, torch.randn(6)
    rounded = x.bfloat16()
    y = norm_relu_pool(rounded, scale, shift, 2)
    assert y.dtype == torch.float32
    assert torch.equal(y, norm_relu_pool(rounded.float(), scale, shift, 2))
    gradients = grad(weighted(lambda *args: norm_relu_pool(args[0], args[1], args[2], 2)), (0, 1, 2))
    found, expected = gradients(rounded, scale, shift), gradients(rounded.float(), scale, shift)
    assert found[0].dtype == torch.bfloat16
    for ours, exact in zip(found, expected, strict=True):
        assert relative(ours.float(), exact) < 4e-3  # the gradient of the images is in bfloat16 again
