"""Shapes, names, sizes and refusals of the networks."""

from typing import Any

import pytest
import torch
from problems import F64, relative
from torch import nn
from torch.nn import functional as F

import fmaml
from fmaml.torch_fixes.norms import batch_norm, group_norm, layer_norm
from fmaml.tree import leaves


def size(params):
    return sum(leaf.numel() for leaf in leaves(params))


def test_conv4_strided_is_the_omniglot_network():
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5)
    params = model.init(torch.Generator().manual_seed(0))
    assert model.apply(params, torch.rand(7, 1, 28, 28)).shape == (7, 5)
    assert size(params) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64 + 64 * 5 + 5
    assert list(params)[:3] == ["conv1.weight", "norm1.weight", "norm1.bias"]


def test_conv4_pooled_is_the_mini_imagenet_network():
    model = fmaml.conv4(inputs=(3, 84, 84), outputs=5, width=32, pool="max")
    params = model.init(torch.Generator().manual_seed(0))
    assert params["head.weight"].shape == (5, 32 * 5 * 5)
    assert model.apply(params, torch.rand(6, 3, 84, 84)).shape == (6, 5)


@pytest.mark.parametrize("width", [1, 7, 33])
def test_any_width(width):
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=width)
    params = model.init(torch.Generator().manual_seed(0))
    assert model.apply(params, torch.rand(2, 1, 28, 28)).shape == (2, 5)


def test_conv4_equals_the_same_network_in_torch_nn():
    def block(channels):
        return [nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]

    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5)]
    reference = nn.Sequential(*block(1), *block(8), *block(8), *block(8), *head)
    model = fmaml.conv4(inputs=(1, 28, 28), outputs=5, width=8)
    params = model.init(torch.Generator().manual_seed(0))
    params = {name: value + 0.1 * torch.randn_like(value) for name, value in params.items()}
    reference.load_state_dict(dict(zip(dict(reference.named_parameters()), params.values(), strict=True)), strict=False)
    x = torch.rand(6, 1, 28, 28)
    assert relative(model.apply(params, x), reference(x).detach()) < 1e-6


def test_init_is_a_function_of_the_generator():
    model = fmaml.mlp(inputs=(4,), outputs=3)
    one, same, other = (model.init(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["layer1.weight"], other["layer1.weight"])


def test_xavier_bound():
    params = fmaml.conv4(inputs=(1, 28, 28), outputs=5).init(torch.Generator().manual_seed(0))
    weight = params["conv2.weight"]
    bound = (6 / (9 * 128)) ** 0.5
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": (1, 8, 8), "pool": "max"}, "images of 8x8 vanish"),
        ({"inputs": (1, 28, 28), "norm": "instance"}, "norm = 'instance': must be one of"),
        ({"inputs": (1, 28, 28), "pool": "avg"}, "pool = 'avg': must be one of"),
        ({"inputs": (1,)}, "needs images"),
        ({"inputs": (1, 28, 28), "width": 12, "norm": "group"}, "width = 12 must be a multiple of 8"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fmaml.conv4(outputs=5, **options)


def test_norms_equal_torch():
    x, w, b = torch.randn(6, 8, 5, 5, dtype=F64), torch.randn(8, dtype=F64), torch.randn(8, dtype=F64)
    assert relative(batch_norm(x, w, b), F.batch_norm(x, None, None, w, b, training=True)) < 1e-14
    assert relative(group_norm(x, w, b, 4), F.group_norm(x, 4, w, b)) < 1e-14
    assert relative(layer_norm(x, w, b), F.group_norm(x, 1, w, b)) < 1e-14
    vector = torch.randn(6, 8, dtype=F64)
    assert relative(batch_norm(vector, w, b), F.batch_norm(vector, None, None, w, b, training=True)) < 1e-14


def test_a_network_that_ignores_its_input_is_refused():
    """Group norm of one channel at one position gives 0, whatever the image."""
    with pytest.raises(ValueError, match="reduces images of 16x16 to a constant"):
        fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8, norm="group")
    for options in ({"width": 16}, {"norm": "layer"}, {"inputs": (1, 20, 16)}, {"pool": "max"}):
        settings: dict[str, Any] = {"inputs": (1, 16, 16), "outputs": 3, "width": 8, "norm": "group", **options}
        model = fmaml.conv4(**settings)
        first, second = model.apply(model.init(torch.Generator()), torch.rand(2, *settings["inputs"]))
        assert not torch.allclose(first, second)


@pytest.mark.parametrize("compiled", [False, True])
def test_parameters_of_another_network_are_refused(compiled):
    """A batch norm's scales in a network without norm were ignored without a word."""
    plain, normed = (fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8, norm=norm) for norm in ("none", "batch"))
    x = torch.rand(4, 1, 16, 16)
    apply = torch.compile(plain.apply, backend="eager", fullgraph=True) if compiled else plain.apply
    assert apply(plain.init(torch.Generator()), x).shape == (4, 3)
    with pytest.raises(ValueError, match=r"params \['conv1.bias', .*'norm4.weight'\]: missing, or not parameters"):
        plain.apply(normed.init(torch.Generator()), x)
    for model in (fmaml.mlp(inputs=(4,), outputs=2), fmaml.transformer(inputs=(8,), outputs=5, width=8)):
        with pytest.raises(ValueError, match=r"params \['more'\]: missing, or not"):
            model.apply({**model.init(torch.Generator()), "more": x}, torch.zeros(1, 4, dtype=torch.int64))


def test_resnet12_is_the_published_one():
    """Three 3x3 convolutions and a 1x1 in each block, of 64, 160, 320 and 640 filters, each with its norm."""
    params = fmaml.resnet12(inputs=(3, 84, 84), outputs=5).init(torch.Generator())
    convolutions = [value for name, value in params.items() if value.ndim == 4]
    norms = [name for name in params if ".norm" in name and name.endswith(".weight")]
    sizes = [(3, 64), (64, 160), (160, 320), (320, 640)]
    assert len(convolutions) == len(norms) == 16
    assert sum(value.numel() for value in convolutions) == sum(9 * (a * b + 2 * b * b) + a * b for a, b in sizes)
    assert params["head.weight"].shape == (5, 640)


def test_resnet12_is_its_module():
    """Block by block the same as layers of torch.nn with the same parameters."""
    model = fmaml.resnet12(inputs=(3, 20, 20), outputs=5, width=4)
    params = model.init(torch.Generator().manual_seed(0))
    x = torch.rand(6, 3, 20, 20)
    h = x
    for i in range(1, 5):
        start = h
        for j in (1, 2, 3):
            weight = params[f"block{i}.conv{j}.weight"]
            layer = torch.nn.Sequential(torch.nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False))
            layer[0].weight.data = weight
            h = torch.nn.BatchNorm2d(weight.shape[0], track_running_stats=False)(layer(h))
            h = torch.nn.LeakyReLU(0.1)(h) if j < 3 else h
        shortcut = torch.nn.functional.conv2d(start, params[f"block{i}.shortcut.weight"])
        shortcut = torch.nn.BatchNorm2d(shortcut.shape[1], track_running_stats=False)(shortcut)
        h = torch.nn.MaxPool2d(2)(torch.nn.LeakyReLU(0.1)(h + shortcut))
    expected = h.mean((2, 3)) @ params["head.weight"].T + params["head.bias"]
    assert torch.allclose(model.apply(params, x), expected, atol=1e-5)
