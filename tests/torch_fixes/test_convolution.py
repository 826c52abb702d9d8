"""Convolutions of images that are laid out channels last: derivatives, and the layout of the filters' gradient."""

import pytest
import torch
from problems import F64, relative
from torch.func import debug_unwrap, grad, jvp, vmap
from torch.nn import functional as F

from fmaml.torch_fixes import convolution as convolution_file
from fmaml.torch_fixes import layout
from fmaml.torch_fixes.convolution import conv2d


@pytest.fixture(autouse=True)
def every_size_is_large(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)


@pytest.mark.parametrize("stride", [1, 2, (1, 1)])
def test_the_filters_gradient_is_laid_out_as_usual_unless_strided(stride):
    x, weights, seen = torch.randn(5, 4, 3, 8, 8), torch.randn(5, 6, 3, 3, 3), []

    def look(x, weight):
        x = layout.channels_last(x, weight)
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
            x = layout.channels_last(x, weight) if laid_out else x

            def loss(weight):
                return convolution(x, weight, None, stride).sin().square().mean()

            return loss(weight - 0.1 * grad(loss)(weight))

        return lambda weights: vmap(adapted)(x, weights).sum()

    ours, torchs = total(conv2d, True), total(F.conv2d, False)
    assert relative(grad(ours)(weights), grad(torchs)(weights)) < 1e-12
    assert relative(jvp(ours, (weights,), (v,))[1], (grad(torchs)(weights) * v).sum()) < 1e-12
    each = vmap(grad(lambda x, weight: conv2d(layout.channels_last(x, weight), weight).sin().sum(), 1))(x, weights)
    alone = [grad(lambda w, i=i: F.conv2d(x[i], w).sin().sum())(weights[i]) for i in range(5)]
    assert relative(each, torch.stack(alone)) < 1e-12


def test_only_vmapped_images_that_are_laid_out_need_it(monkeypatch):
    calls = []
    monkeypatch.setattr(convolution_file, "applied", lambda function, weight: calls.append(weight.shape) or weight)
    x, weights = torch.randn(5, 4, 3, 8, 8), torch.randn(5, 6, 3, 3, 3)
    vmap(conv2d)(x, weights)
    conv2d(layout.channels_last(x[0]), weights[0])
    assert not calls
    vmap(lambda x, weight: conv2d(layout.channels_last(x), weight))(x, weights)
    assert calls == [(6, 3, 3, 3)]
