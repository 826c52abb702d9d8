"""The meta-loss differentiated from outside, by ``backward()``: right whatever function of torch a network calls."""

import pytest
import torch
from torch.nn import functional as F

import fmaml

pytestmark = pytest.mark.core

CALLS = {  # what a user's own apply may call, between a layer and the head
    "layer norm": lambda p, h: F.layer_norm(h, (8,), p["w"], p["b"]),
    "torch.layer_norm": lambda p, h: torch.layer_norm(h, (8,), p["w"], p["b"]),
    "batch norm": lambda p, h: F.batch_norm(h, None, None, p["w"], p["b"], True),
    "instance norm": lambda p, h: F.instance_norm(h[None], None, None, None, None)[0] * p["w"] + p["b"],
    "embedding": lambda p, h: F.embedding((h[:, 0] > 0).long(), p["a"], padding_idx=1) * p["w"] + p["b"],
}
KINDS = {"vmap": {"batching": "vmap"}, "loop": {"batching": "loop"}, "chunks": {"batching": "vmap", "chunk_size": 2}}


def problem(name: str):
    g = torch.Generator().manual_seed(1)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def batch():
        return fmaml.Batch(randn(3, 6, 8), torch.randint(0, 3, (3, 6), generator=g))

    theta = {"a": randn(8, 8) * 0.4, "w": randn(8) + 2, "b": randn(8), "l": randn(3, 8)}

    def apply(p, x):
        return torch.tanh(CALLS[name](p, x @ p["a"])) @ p["l"].T

    loss_fn = fmaml.supervised(apply, fmaml.cross_entropy)
    return fmaml.maml(loss_fn, inner_lr=0.5, steps=2), theta, fmaml.Task(batch(), batch())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_backward_gives_the_looped_meta_gradient(name, kind):
    algorithm, theta, tasks = problem(name)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks, batching="loop")
    leaves = {key: value.clone().requires_grad_() for key, value in theta.items()}
    fmaml.meta_loss(algorithm, leaves, tasks, **KINDS[kind])[0].backward()
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        assert torch.allclose(leaf.grad, expected[key], rtol=1e-12, atol=1e-13), key


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_of_the_meta_gradient_is_that_of_finite_differences(name):
    algorithm, theta, tasks = problem(name)

    direction = torch.ones(8, 8, dtype=torch.float64)
    direction[1] = 0  # the padding row: what torch calls its gradient is 0, and not its derivative

    def slope(shift, weights):
        grads, _ = fmaml.meta_grad(algorithm, {**theta, "a": theta["a"] + shift * direction}, tasks)
        return sum((grads[key] * weights[key]).sum() for key in grads)

    weights = {key: value.cos() for key, value in theta.items()}
    zero, h = torch.zeros((), dtype=torch.float64), 1e-6
    found = torch.func.grad(slope)(zero, weights)
    expected = (slope(zero + h, weights) - slope(zero - h, weights)) / (2 * h)
    assert float(found) == pytest.approx(float(expected), rel=1e-6, abs=1e-8)


def test_torch_func_grad_of_the_meta_loss_of_a_shipped_network():
    model = fmaml.conv4(inputs=(1, 16, 16), outputs=3, width=8)
    theta = {name: value.double() for name, value in model.init(torch.Generator().manual_seed(0)).items()}
    g = torch.Generator().manual_seed(2)
    x, y = torch.rand(2, 6, 1, 16, 16, generator=g, dtype=torch.float64), torch.arange(3).repeat(2, 2)
    tasks = fmaml.Task(fmaml.Batch(x, y), fmaml.Batch(x.flip(1), y.flip(1)))
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=1)
    expected, _ = fmaml.meta_grad(algorithm, theta, tasks)
    found = torch.func.grad(lambda theta: fmaml.meta_loss(algorithm, theta, tasks)[0])(theta)
    for key, value in found.items():
        assert torch.allclose(value, expected[key], rtol=1e-10, atol=1e-12), key
