"""The network of signals: shapes, names, exact meta-gradients, and refusals."""

from typing import Any

import pytest
import torch
from problems import doubled, image_tasks, relative
from torch import nn

import fmaml

SHAPE = (2, 17)
OPTIONS = {
    **{f"stride-{norm}": {"norm": norm} for norm in ("batch", "stored", "group", "layer", "none")},
    **{f"max-{norm}": {"norm": norm, "pool": "max"} for norm in ("batch", "group", "layer", "none")},
    "two layers of 5 samples": {"layers": 2, "kernel": 5},
}


def network(**options: Any) -> fmaml.Model:
    return fmaml.conv1d(**{"inputs": SHAPE, "outputs": 3, "width": 8, "layers": 3, **options})


def test_it_equals_the_same_network_in_torch_nn():
    def block(channels):
        return [nn.Conv1d(channels, 8, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(8), nn.ReLU()]

    reference = nn.Sequential(*block(2), *block(8), *block(8), nn.AvgPool1d(3), nn.Flatten(), nn.Linear(8, 3))
    model = network(kernel=5)
    params = model.init(torch.Generator().manual_seed(0))
    params = {name: value + 0.1 * torch.randn_like(value) for name, value in params.items()}
    reference.load_state_dict(dict(zip(dict(reference.named_parameters()), params.values(), strict=True)), strict=False)
    x = torch.rand(6, *SHAPE)
    assert relative(model.apply(params, x), reference(x).detach()) < 1e-6


def test_max_pooling_feeds_the_head_all_that_is_left():
    params = network(pool="max").init(torch.Generator().manual_seed(0))
    assert params["head.weight"].shape == (3, 8 * 2)
    assert list(params)[:3] == ["conv1.weight", "norm1.weight", "norm1.bias"]


@pytest.mark.parametrize("name", OPTIONS)
def test_vmapped_equals_looped_to_second_order_and_from_outside(name):
    """The meta-gradient through two inner steps, and the gradient of `meta_loss`."""
    model = network(**OPTIONS[name])
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(4, SHAPE)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    looped, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    vmapped, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="vmap")
    assert relative(vmapped, looped) < 1e-11
    leaves = {key: value.clone().requires_grad_() for key, value in theta.items()}
    fmaml.meta_loss(algorithm, leaves, tasks)[0].backward()
    outside = {key: torch.zeros_like(value) if value.grad is None else value.grad for key, value in leaves.items()}
    assert relative(outside, looped) < 1e-11


@pytest.mark.parametrize("name", ["stride-batch", "max-layer"])
def test_the_meta_gradient_is_that_of_finite_differences(name):
    model = network(**OPTIONS[name])
    theta, tasks = doubled(model.init(torch.Generator().manual_seed(0))), image_tasks(3, SHAPE)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    grads, _ = fmaml.meta_grad(algorithm, theta, tasks)
    direction = {key: torch.randn_like(value) for key, value in theta.items()}
    along, h = sum(float((grads[key] * direction[key]).sum()) for key in theta), 1e-6

    def loss(t: float) -> float:
        return float(fmaml.meta_loss(algorithm, {k: v + t * direction[k] for k, v in theta.items()}, tasks)[0])

    assert (loss(h) - loss(-h)) / (2 * h) == pytest.approx(along, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": (1, 7)}, "signals of 7 samples vanish in 3 halvings; give layers = 2 at most, or longer signals"),
        ({"inputs": (1, 7), "pool": "max"}, "signals of 7 samples vanish in 3 halvings"),
        ({"inputs": (1, 1)}, "signals of 1 samples vanish in 3 halvings; use mlp"),
        ({"inputs": (1, 28, 28)}, "needs signals, .* use conv4 for images"),
        ({"kernel": 4}, "kernel = 4: must be odd; give 5"),
        ({"norm": "instance"}, "norm = 'instance': must be one of"),
        ({"pool": "avg"}, "pool = 'avg': must be one of"),
        ({"width": 12, "norm": "group"}, "width = 12 must be a multiple of 8"),
        ({"inputs": (1, 8), "norm": "group"}, "reduces signals of 8 samples to a constant"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_shortest_signals_that_are_taken_matter(name):
    options = OPTIONS[name]
    model = network(inputs=(2, 1 << options.get("layers", 3)), **{**options, "width": 16})
    x = torch.rand(2, 2, 1 << options.get("layers", 3))
    first, second = model.apply(model.init(torch.Generator().manual_seed(1)), x)
    assert not torch.allclose(first, second)
