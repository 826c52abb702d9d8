"""Max-pooling of many tasks as one operator: to every order the numbers of torch's own, in the layout that it finds."""

import pytest
import torch
from problems import F64, doubled, image_tasks, relative
from torch.autograd import gradcheck, gradgradcheck
from torch.func import debug_unwrap, grad, jvp, vmap
from torch.nn import functional as F

import fmaml
from fmaml.torch_fixes import layout
from fmaml.torch_fixes import max_pool as max_pool_file
from fmaml.torch_fixes.max_pool import MaxPool, applied, max_pool

WINDOWS = {  # size, stride, padding, dilation
    "2x2": (2, 2, 0, 1),
    "overlapping": (3, 2, 1, 1),
    "dilated": (2, 1, 0, 2),
    "oblong": ((2, 3), (2, 1), (1, 0), (1, 1)),
}


@pytest.fixture(autouse=True)
def every_size_is_large(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["usual", "laid out"])
def test_value_and_three_orders_of_derivatives(window, memory_format):
    x = torch.randn(3, 2, 7, 6, dtype=F64).to(memory_format=memory_format).requires_grad_()

    def operator(x):
        return applied(MaxPool, x, *window)[0]

    def plain(x):
        return F.max_pool2d(x, *window)

    assert torch.equal(operator(x), plain(x))
    assert gradcheck(operator, x)
    assert gradgradcheck(operator, x)

    def third(fn):
        def first(x):
            return grad(lambda x: fn(x).sin().square().sum())(x).square().sum()

        return grad(lambda x: grad(first)(x).square().sum())(x.detach())

    assert relative(third(operator), third(plain)) < 1e-12


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("weights", ["of its own", "of all"])
def test_many_tasks_are_each_alone(window, weights):
    """To second order, through two inner steps on weights before the pooling, and with the gradient outside, too."""
    tasks, weight = torch.randn(5, 4, 3, 8, 7, dtype=F64), torch.randn(3, 3, 1, 1, dtype=F64)

    def adapted(pooled, x, weight):
        def loss(weight):
            return pooled(F.conv2d(x, weight), *window).sin().square().sum()

        for _ in range(2):
            weight = weight - 0.1 * grad(loss)(weight)
        return loss(weight)

    def laid_out(x, weight):
        return adapted(max_pool, layout.channels_last(x), weight)

    def usual(x, weight):
        return adapted(F.max_pool2d, x, weight)

    given = weight.expand(5, -1, -1, -1, -1) if weights == "of its own" else weight
    dims = (0, 0 if weights == "of its own" else None)
    each = torch.stack([grad(usual, 1)(x, weight) for x in tasks])
    assert relative(vmap(grad(laid_out, 1), dims)(tasks, given), each) < 1e-11
    outside = grad(lambda given: vmap(laid_out, dims)(tasks, given).sum())(given)
    assert relative(outside, each if weights == "of its own" else each.sum(0)) < 1e-11


def test_images_and_gradients_keep_the_layout():
    """Else the copies that it saves would be made after it: seen by the tasks' own tensors, vmapped."""
    seen = []

    def look(x):
        x = layout.channels_last(x)
        y = max_pool(x, 2)

        def pulled(g):
            return torch.func.vjp(lambda x: max_pool(x, 2), x)[1](g)[0]

        gx = pulled(y.square())
        seen.extend(debug_unwrap(t) for t in (y, gx, torch.func.vjp(pulled, y)[1](gx)[0]))
        return y.sum()

    vmap(look)(torch.rand(5, 4, 3, 6, 8))  # [tasks, n, channels, height, width]
    for t, (height, width) in zip(seen, [(3, 4), (6, 8), (3, 4)], strict=True):
        assert t.shape == (4, 5, 3, height, width)
        assert t.stride() == (5 * 3 * height * width, 3, 1, 5 * 3 * width, 5 * 3)


def laid_out(fn):
    return vmap(lambda x: fn(layout.channels_last(x)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_what_the_operator_does_not_do_is_torchs():
    x = torch.randn(5, 4, 3, 7, 7, dtype=F64)
    above = laid_out(lambda x: max_pool(x, 2, ceil_mode=True))(x)
    assert torch.equal(above[1], F.max_pool2d(x[1], 2, ceil_mode=True))
    _, places = laid_out(lambda x: max_pool(x, 2, return_indices=True))(x)
    assert torch.equal(places[1], F.max_pool2d(x[1], 2, return_indices=True)[1])
    found = jvp(laid_out(lambda x: max_pool(x, 2)), (x,), (x,))
    assert torch.equal(found[0], found[1])  # pooling is homogeneous


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_single_images_and_no_images_are_torchs(monkeypatch):
    """A single image has no axis for the tasks to share; of no images nothing says how many there were."""
    x = torch.randn(5, 4, 3, 7, 7, dtype=F64)
    each = laid_out(lambda x: torch.stack([max_pool(image, 3, 1, 1) for image in x]))(x)
    assert torch.equal(each[2], F.max_pool2d(x[2], 3, 1, 1))
    assert laid_out(lambda x: max_pool(x[:0], 2))(x).shape == (5, 0, 3, 3, 3)
    with pytest.raises(RuntimeError, match="stride should not be zero"):
        laid_out(lambda x: max_pool(x, 2, 0))(x)


def test_only_vmapped_images_that_are_laid_out_take_the_operator(monkeypatch):
    calls = []
    monkeypatch.setattr(max_pool_file, "applied", lambda function, x, *_: (calls.append(x.shape), None))
    x = torch.randn(5, 4, 3, 8, 8)
    vmap(lambda x: max_pool(x, 2))(x)
    max_pool(layout.channels_last(x[0]), 2)
    assert not calls
    with pytest.raises(ValueError, match="got type <class 'NoneType'>"):  # what the stand-in returns
        laid_out(lambda x: max_pool(x, 2))(x)
    assert calls == [(4, 3, 8, 8)]


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_forward_derivatives_with_respect_to_the_images(name):
    model, shape = NETWORKS[name]
    x, v = torch.randn(2, 3, 4, *shape, dtype=F64)
    params = doubled(model.init(torch.Generator().manual_seed(0)))
    params = {key: p.expand(3, *p.shape) for key, p in params.items()}  # each task's own

    def total(x):
        return vmap(model.apply)(params, x).square().sum()

    assert relative(jvp(total, (x,), (v,))[1], (grad(total)(x) * v).sum()) < 1e-11
    alone = vmap(lambda p, x, v: jvp(lambda x: model.apply(p, x).square().sum(), (x,), (v,))[1])(params, x, v)
    assert relative(alone.sum(), (grad(total)(x) * v).sum()) < 1e-11


NETWORKS = {
    "conv4": (fmaml.conv4(inputs=(3, 17, 19), outputs=3, width=5, pool="max"), (3, 17, 19)),
    "resnet12": (fmaml.resnet12(inputs=(1, 16, 17), outputs=3, width=2), (1, 16, 17)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_networks_are_the_same_as_in_the_usual_layout(name, batching, monkeypatch):
    model, shape = NETWORKS[name]
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(4, shape)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    found = fmaml.meta_grad(algorithm, theta, tasks, batching=batching)[0]
    monkeypatch.setattr(layout, "LARGE_IMAGES", 10**9)
    assert relative(found, fmaml.meta_grad(algorithm, theta, tasks, batching="loop")[0]) < 1e-10
