"""Convolutions of images that are laid out channels last: derivatives, and the layout of the filters' gradient."""

from functools import partial

import pytest
import torch
from problems import F64, relative, weighted
from torch.func import debug_unwrap, grad, jvp, vmap
from torch.nn import functional as F

from fmaml.torch_fixes import convolution as convolution_file
from fmaml.torch_fixes import layout
from fmaml.torch_fixes.convolution import conv2d
from fmaml.tree import leaves


@pytest.fixture(autouse=True)
def every_size_is_large(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)


@pytest.mark.parametrize("stride", [1, 2, (1, 1)])
def test_the_filters_gradient_is_laid_out_as_usual_unless_strided(stride):
    x, weights, seen = torch.randn(5, 4, 3, 8, 8), torch.randn(5, 6, 3, 3, 3), []

    def look(x, weight):
        x = layout.channels_last(x)
        g = grad(lambda weight: conv2d(x, weight, stride=stride).sin().sum())(weight)
        seen.append(debug_unwrap(g).stride(-1))
        return g.sum()

    vmap(look)(x, weights)
    assert (seen == [1]) == (stride != 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_derivatives_are_those_of_torchs_convolution(stride):
    """Twice in reverse, and forward over reverse."""
    x, weights, v = torch.randn(5, 4, 3, 8, 8, dtype=F64), *torch.randn(2, 5, 6, 3, 3, 3, dtype=F64)

    def total(convolution, laid_out):
        def adapted(x, weight):
            x = layout.channels_last(x) if laid_out else x

            def loss(weight):
                return convolution(x, weight, None, stride).sin().square().mean()

            return loss(weight - 0.1 * grad(loss)(weight))

        return lambda weights: vmap(adapted)(x, weights).sum()

    ours, torchs = total(conv2d, True), total(F.conv2d, False)
    assert relative(grad(ours)(weights), grad(torchs)(weights)) < 1e-12
    assert relative(jvp(ours, (weights,), (v,))[1], (grad(torchs)(weights) * v).sum()) < 1e-12
    each = vmap(grad(lambda x, weight: conv2d(layout.channels_last(x), weight).sin().sum(), 1))(x, weights)
    alone = [grad(lambda w, i=i: F.conv2d(x[i], w).sin().sum())(weights[i]) for i in range(5)]
    assert relative(each, torch.stack(alone)) < 1e-12


def test_the_operators_serve_where_they_save_time(monkeypatch):
    """One derivative: the identity with a gradient in the usual layout, under vmap alone. Two: the convolution."""
    calls = []
    apply = convolution_file.applied
    monkeypatch.setattr(convolution_file, "applied", lambda function, *a: calls.append(function) or apply(function, *a))
    x, weights = torch.randn(5, 4, 3, 8, 8), torch.randn(5, 6, 3, 3, 3)

    def total(x, weight):
        return conv2d(layout.channels_last(x), weight).square().sum()

    def total_gradient(x, weight):
        return grad(total, 1)(x, weight).square().sum()

    vmap(conv2d)(x, weights)
    total(x[0], weights[0])
    grad(total, 1)(x[0], weights[0])
    assert not calls
    vmap(total)(x, weights)
    assert set(calls) == {convolution_file.UsualGradient}
    calls.clear()
    grad(total_gradient, 1)(x[0], weights[0])
    assert calls[0] is convolution_file.Convolution
    assert convolution_file.FilterGradient in calls


GEOMETRIES = [
    (1, 1),
    (2, 1),
    (1, 0),
    (2, 0),
    ((2, 1), (1, 2)),
    ((2,), (1,), (2,)),
    (1, 2, 2),
    (1, 1, 1, 2),
]  # stride, padding, dilation, groups


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_three_derivatives_are_those_of_torchs_convolution(geometry, shared):
    """With respect to images and filters, vmapped over images and filters, or over images alone."""
    groups = geometry[3] if len(geometry) > 3 else 1
    x, weights = torch.randn(3, 2, 4, 7, 9, dtype=F64), torch.randn(3, 6, 4 // groups, 3, 3, dtype=F64)
    weights, axis = (weights[0], None) if shared else (weights, 0)

    def derivatives(convolution, laid_out):
        def values(x, weight):
            def outputs(x, weight):
                return convolution(layout.channels_last(x) if laid_out else x, weight, None, *geometry)

            found = [outputs]
            for _ in range(3):
                found.append(grad(weighted(found[-1]), (0, 1)))
            return [t for f in found for t in leaves(f(x, weight))]

        return vmap(values, (0, axis))(x, weights)

    for ours, torchs in zip(derivatives(conv2d, True), derivatives(F.conv2d, False), strict=True):
        assert relative(ours, torchs) < 1e-11


def test_one_image_without_a_batch():
    """It is [channels, height, width], seen from [height, width, channels]."""
    image, weight = torch.randn(8, 8, 3, dtype=F64).permute(2, 0, 1), torch.randn(6, 3, 3, 3, dtype=F64)

    def twice(convolution, image):
        return grad(weighted(grad(weighted(lambda w: convolution(image, w)))))(weight)

    assert relative(twice(conv2d, image), twice(F.conv2d, image.contiguous())) < 1e-12


@pytest.mark.parametrize("stride", [1, 2])
def test_autocast_rounds_two_derivatives_to_bfloat16(stride):
    """Of tasks together and one by one: near those in float32, and not equal."""
    x, weights = torch.randn(3, 4, 16, 8, 8), torch.randn(3, 8, 16, 3, 3) / 12

    def derivatives(x, weight, enabled=True):
        def outputs(x, weight):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=False):
                return conv2d(layout.channels_last(x), weight, None, stride, 1).float()

        first = grad(lambda x, weight: outputs(x, weight).square().mean(), (0, 1))
        second = grad(lambda x, weight: sum(t.square().sum() for t in first(x, weight)), (0, 1))
        return [*first(x, weight), *second(x, weight)]

    together, exact = (vmap(partial(derivatives, enabled=enabled))(x, weights) for enabled in (True, False))
    alone = [torch.stack(ts) for ts in zip(*map(derivatives, x, weights), strict=True)]
    for ours, each, float32 in zip(together, alone, exact, strict=True):
        assert 1e-4 < relative(ours, float32) < 1e-2
        assert relative(each, float32) < 1e-2


def test_autocast_has_torchs_convolution():
    x, weight = layout.channels_last(torch.randn(4, 3, 8, 8)), torch.randn(6, 3, 3, 3)

    def twice(weight):
        return grad(lambda w: conv2d(x, w).float().square().sum())(weight).square().sum()

    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x, weight).dtype == torch.bfloat16
        assert grad(twice)(weight).isfinite().all()


def test_filters_that_all_tasks_share_keep_the_layout():
    """torch's batching rule of a convolution by shared filters would copy the images into its usual layout."""
    x, weight, seen = torch.randn(5, 4, 3, 8, 8), torch.randn(6, 3, 3, 3), []

    def look(x):
        y = conv2d(layout.channels_last(x), weight, padding=1)
        seen.append(layout.is_laid_out(y))
        return y

    assert torch.allclose(vmap(look)(x), vmap(lambda x: F.conv2d(x, weight, padding=1))(x), atol=1e-5)
    assert seen == [True]
