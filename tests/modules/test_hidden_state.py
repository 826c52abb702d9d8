"""State that a module keeps in hidden ways: results of earlier calls, shared memory, generators, changes in place."""

# wrong types are given on purpose, and torch's stubs are incomplete:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false

import functools
import random

import numpy as np
import pytest
import torch
from problems import F64
from test_hidden_tensors import check_right, in_float64, meta_gradient, plain, tasks_of_vectors
from torch import nn
from torch.nn import functional as F

import fmaml

__all__ = ["in_float64"]  # a fixture for each test
TABLE: dict[str, nn.Module] = {}


class Net(nn.Sequential):
    """A network with another forward pass, ``way(self, x)``."""

    def __init__(self, way):
        super().__init__(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        self.way, self.mask, self.last = way, None, None
        self.rng, self.numpy_rng = random.Random(0), np.random.default_rng(0)

    @functools.cached_property
    def weight(self):
        return self[0].weight

    @functools.cached_property
    def doubled(self):
        return 2 * self[0].weight

    @functools.lru_cache(None)  # noqa: B019
    def tripled(self):
        return 3 * self[0].weight

    def rare(self, draw):
        return 2.0 if draw < 1e-9 else 1.0

    def from_table(self):
        return TABLE["net"][0].weight

    def forward(self, input):
        return self.way(self, input)

    def of(self, weight, x):
        return self[2](self[1](F.linear(x, weight, self[0].bias)))


def first_mean(net, x):
    if net.last is None:
        net.last = x.mean(0)
    return net.of(net[0].weight, x - net.last)


def clamped(net, x):
    with torch.no_grad():
        net[0].weight.clamp_(-0.1, 0.1)
    return net.of(net[0].weight, x)


def unused(net, x):
    return net.of(net[0].weight, x)


KEEPS = "which an earlier call computed from its own parameters or input; compute it in each call"
DRAWS = "a call draws from a generator"
REFUSED = {
    "a cached parameter": (lambda net, x: net.of(net.weight, x), f"a call reads weight, {KEEPS}"),
    "a cached result": (lambda net, x: net.of(net.doubled, x), f"a call reads doubled, {KEEPS}"),
    "a result in C": (lambda net, x: net.of(net.tripled(), x), f"a call reads a result, {KEEPS}"),
    "the first mean": (first_mean, f"a call reads last, {KEEPS}"),
    "clamped weights": (clamped, "a call changes 0.weight in place; write it without"),
    "an input in place": (lambda net, x: net.of(net[0].weight, x.sub_(1)), "a call changes its input in place"),
    "Python's generator": (lambda net, x: net.of(net[0].weight, x) * net.rare(random.random()), DRAWS),
    "NumPy's generator": (lambda net, x: net.of(net[0].weight, x) * net.rare(np.random.rand()), DRAWS),
    "its own generator": (lambda net, x: net.of(net[0].weight, x) * net.rare(net.rng.random()), DRAWS),
    "its own of NumPy": (lambda net, x: net.of(net[0].weight, x) * net.rare(net.numpy_rng.random()), DRAWS),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", REFUSED)
def test_hidden_state_is_refused_each_time_and_changes_nothing(name, batching):
    way, message = REFUSED[name]
    model, tasks = fmaml.from_module(Net(way)), tasks_of_vectors()
    theta, same = model.init(), tasks_of_vectors()
    before = {key: value.clone() for key, value in theta.items()}
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=1)
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"from_module\(Net\): {message}"):
            fmaml.meta_grad(algorithm, theta, tasks, batching=batching)
    assert all(torch.equal(before[key], theta[key]) for key in theta)
    assert torch.equal(tasks.support.x, same.support.x)
    check_right(Net(unused), plain)


def keeps_what_is_constant(net, x):
    if net.mask is None or len(net.mask) != len(x):
        net.mask = torch.zeros_like(x[:, :4]) + x.new_ones(len(x), 4).cumsum(0) * torch.arange(4).type_as(x)
    net.last = [net[0](x), net[0].weight.T]
    return net[2](net[1](net.last[0]) + net.mask)


def test_a_call_may_keep_constants_and_results_that_it_does_not_use_again():
    def forward(p, x):
        mask = torch.ones(len(x), 4, dtype=F64).cumsum(0) * torch.arange(4)
        return F.linear(F.linear(x, p["0.weight"], p["0.bias"]).tanh() + mask, p["2.weight"], p["2.bias"])

    check_right(Net(keeps_what_is_constant), forward)


def test_layers_in_place_and_other_global_variables_are_allowed():
    TABLE["net"] = Net(unused)  # named by a method that the forward pass does not use
    net = nn.Sequential(nn.Linear(5, 4), nn.SiLU(inplace=True), nn.Linear(4, 2))

    def forward(p, x):
        return F.linear(F.silu(F.linear(x, p["0.weight"], p["0.bias"])), p["2.weight"], p["2.bias"])

    check_right(net, forward)
    check_right(TABLE["net"], plain)


def test_a_way_that_the_first_input_does_not_take_is_searched_in_the_methods_of_the_class():
    class Branches(Net):
        def forward(self, input):
            return self.of(self.from_table() if len(input) == 3 else self[0].weight, input)

    TABLE["net"] = net = Branches(None)
    with pytest.raises(ValueError, match=r"its method from_table\) \(the global variable TABLE.*leads to the module"):
        fmaml.from_module(net)


def test_the_data_of_a_weight_has_no_derivative():
    def forward(p, x):
        return plain(p, x) * (1 + p["0.weight"].detach().sum())

    check_right(Net(lambda net, x: net.of(net[0].weight, x) * (1 + net[0].weight.data.sum())), forward)


def test_tensors_that_share_memory_are_refused_with_a_cure_that_works():
    net = Net(unused)
    net[2].register_buffer("flat", net[0].weight.detach().view(-1))
    with pytest.raises(ValueError, match=r"2\.flat: shares memory with 0\.weight; .*clone\(\)"):
        fmaml.from_module(net)
    net[2].flat = net[2].flat.clone()
    check_right(net, plain)
    net[2].weight = nn.Parameter(net[0].weight.T[:2, :4])
    with pytest.raises(ValueError, match=r"2\.weight: shares memory with 0\.weight|0\.weight: shares memory with 2"):
        fmaml.from_module(net)
    memory = torch.randn(28)  # parts that do not overlap, as of a recurrent layer on a GPU
    net[0].weight, net[2].weight = nn.Parameter(memory[:20].view(4, 5)), nn.Parameter(memory[20:].view(2, 4))
    check_right(net, plain)


def test_a_module_that_cannot_be_copied_names_the_attribute():
    net = Net(unused)
    net[1].steps = (i for i in range(3))
    with pytest.raises(ValueError, match=r"^Net: cannot be copied: 1\.steps: cannot pickle .*; make it within"):
        meta_gradient(net, tasks_of_vectors(), "vmap")
