"""State that a module keeps in hidden ways: results of earlier calls, shared memory, generators, changes in place."""

# wrong types are given on purpose, and torch's stubs are incomplete:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportFunctionMemberAccess=false, reportIncompatibleMethodOverride=false

import copy
import functools
import itertools
import random
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from problems import F64, relative
from test_hidden_tensors import check_right, in_float64, meta_gradient, plain, tasks_of_vectors
from torch import nn
from torch.nn import functional as F

import fmaml

__all__ = ["in_float64"]  # a fixture for each test
TABLE: dict[str, nn.Module] = {}


class Net(nn.Sequential):
    """A network with another forward pass, ``way(self, x)``."""

    calls = 0

    def __init__(self, way):
        super().__init__(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        self.way, self.mask, self.last = way, None, None
        self.log, self.counter = [], Counter()
        self.array, self.slots, self.object = np.zeros(1), Slots(), SimpleNamespace(calls=0)
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


CALLS = [0]
BY_NAME = {"calls": 0}


def late(count):
    """2 from the tenth call on: two calls give the same numbers."""
    return 2.0 if count > 9 else 1.0


def in_a_list(net, x):
    CALLS[0] += 1
    return net.of(net[0].weight, x) * late(CALLS[0])


def in_a_dict(net, x):
    BY_NAME["calls"] += 1
    return net.of(net[0].weight, x) * late(BY_NAME["calls"])


def in_a_class(net, x):
    Net.calls += 1
    return net.of(net[0].weight, x) * late(Net.calls)


def by_length(net, x):
    net.log.append(1)
    return net.of(net[0].weight, x) * late(len(net.log))


def by_name_later(net, x):
    net.counter["calls"] += 1
    return net.of(net[0].weight, x) * late(net.counter["calls"])


def adding(start):
    """A number or a text that grows, in an attribute."""

    def way(net, x):
        net.mask = start if net.mask is None else net.mask + start
        size = len(net.mask) if isinstance(net.mask, str | tuple) else abs(net.mask)
        return net.of(net[0].weight, x) * late(float(size))

    return way


def in_place(net, x):
    net.array += 1
    return net.of(net[0].weight, x) * late(net.array[0])


def in_slots(net, x):
    net.slots.calls += 1
    return net.of(net[0].weight, x) * late(net.slots.calls)


class Slots:
    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0


def in_an_object(net, x):
    net.object.calls += 1
    return net.of(net[0].weight, x) * late(net.object.calls)


def in_a_function(net, x):
    in_a_function.calls += 1
    return net.of(net[0].weight, x) * late(in_a_function.calls)


in_a_function.calls = 0


def in_a_closure():
    calls = 0

    def way(net, x):
        nonlocal calls
        calls += 1
        return net.of(net[0].weight, x) * late(calls)

    return way


COUNTED = {
    "list": (in_a_list, r"way \(the global variable CALLS\)\[0\]"),
    "dict": (in_a_dict, r"way \(the global variable BY_NAME\)\['calls'\]"),
    "class": (in_a_class, r"calls \(of the class Net\)"),
    "length": (by_length, r"len\(log\)"),
    "new name": (by_name_later, r"counter\['calls'\]"),
    "text": (adding("a"), "mask"),
    "tuple": (adding((1,)), r"len\(mask\)"),
    "fraction": (adding(Fraction(1)), "mask"),
    "complex": (adding(1j), "mask"),
    "number of NumPy": (adding(np.int64(1)), "mask"),
    "tensor": (adding(torch.ones(())), "mask"),
    "array in place": (in_place, "array"),
    "slots": (in_slots, "slots.calls"),
    "object": (in_an_object, "object.calls"),
    "function": (in_a_function, r"way.calls"),
    "closure": (in_a_closure(), r"way \(its variable calls\)"),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", COUNTED)
def test_a_hidden_counter_is_refused_before_it_changes_a_number(name, batching):
    way, place = COUNTED[name]
    with pytest.raises(ValueError, match=rf"each call changes {place}; a call must depend on its input"):
        meta_gradient(Net(way), tasks_of_vectors(), batching)


def copied(net, x):
    return net[2](net[1](copy.deepcopy(net[0])(x)))


def converted(net, x):
    return net[2](net[1](net[0].to(F64, non_blocking=True)(x)))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (copied, r"copied|deepcopy.*: torch.func cannot copy a layer within a call; call the layer itself"),
        (converted, r"to\(F64.*: torch.func cannot change a module within a call; change it before"),
    ],
)
def test_a_layer_that_is_copied_or_converted_within_a_call_is_refused_with_a_cure_that_works(way, message):
    for batching in ("vmap", "loop"):
        with pytest.raises(ValueError, match=message):
            meta_gradient(Net(way), tasks_of_vectors(), batching)
    check_right(Net(unused).to(F64), plain)


COUNT, DEFAULT, CYCLE = itertools.count(), itertools.count(), itertools.cycle([1.0, 1.0, 2.0])


def iterator_of_attribute(net, x):
    return net.of(net[0].weight, x) * late(next(net.count))


def iterator_of_closure():
    numbers = iter([1.0] * 9 + [2.0])
    return lambda net, x: net.of(net[0].weight, x) * next(numbers)


ITERATORS = {
    "attribute": (iterator_of_attribute, "count"),
    "global count": (lambda net, x: net.of(net[0].weight, x) * late(next(COUNT)), r"the global variable COUNT\)"),
    "cycle": (lambda net, x: net.of(net[0].weight, x) * next(CYCLE), r"the global variable CYCLE\)"),
    "closure": (iterator_of_closure(), r"its variable numbers\)"),
    "default": (lambda net, x, c=DEFAULT: net.of(net[0].weight, x) * late(next(c)), r"a default value\)"),
}


@pytest.mark.parametrize("name", ITERATORS)
def test_an_iterator_is_refused_with_a_cure_that_works(name):
    way, place = ITERATORS[name]
    net = Net(way)
    net.count = itertools.count() if name == "attribute" else None
    with pytest.raises(ValueError, match=rf"{place}: is an iterator, .* give the number of the call as a part of x"):
        fmaml.from_module(net)


def test_the_number_of_the_call_may_be_a_part_of_x():
    class Counted(Net):
        def forward(self, x, call):
            return self.of(self[0].weight, x) * torch.where(call > 9, 2.0, 1.0)

    def with_call(number):
        pairs = ((b, b.x.new_full((*b.x.shape[:2], 1), number)) for b in tasks_of_vectors())
        return fmaml.Task(*(batch._replace(x=(batch.x, call)) for batch, call in pairs))

    net = Counted(None)
    for number, factor in ((3, 1), (12, 2)):
        multiplied = Net(lambda net, x, c=factor: c * unused(net, x))
        multiplied.load_state_dict(net.state_dict())
        right = meta_gradient(multiplied, tasks_of_vectors(), "vmap")
        for batching in ("vmap", "loop"):
            assert relative(meta_gradient(net, with_call(number), batching), right) < 1e-12


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
