"""Parameters that a module reaches by Python, not by `nn.Module`: right meta-gradients, or a place that is refused."""

# wrong types are given on purpose, and torch's stubs are incomplete:
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false

import weakref
from collections import deque
from functools import partial
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.utils.prune
from problems import F64, relative
from torch import Tensor, nn
from torch.nn import functional as F

import fmaml
from fmaml import Batch, Task
from fmaml.tree import take

LR, STEPS, TASKS = 0.1, 2, 3


@pytest.fixture(autouse=True)
def in_float64():
    """So that no module is converted after it made aliases."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(before)


class Scaled(nn.Module):
    """o(tanh(scale * a(x))); ``way`` prepares the module, and ``get`` finds its scale."""

    def __init__(self, way=lambda net: None, get=lambda net: net.scale) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(5, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.kept: Any = way(self)
        self.get = get  # leads to no module

    def scale_of(self, factor=1.0):
        return factor * self.scale

    def forward(self, x):
        return self.o(torch.tanh(self.get(self) * self.a(x)))


def scaled(p, x):
    return F.linear(torch.tanh(p["scale"] * F.linear(x, p["a.weight"], p["a.bias"])), p["o.weight"], p["o.bias"])


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    """An object that the search does not see into."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Holder:
    """A class that has a parameter for all its objects."""

    value: Any = None

    def __init__(self, net):
        type(self).value = net.scale


class Reads:
    """An object with a method that uses the module."""

    def __init__(self, net):
        self.net = net

    def read(self):
        return self.net.scale


RIGHT = {  # how the module keeps its scale, and how it gets it
    "attribute": (lambda net: None, lambda net: net.scale),
    "list": (lambda net: [net.scale], lambda net: net.kept[0]),
    "list of all": (lambda net: list(net.parameters()), lambda net: net.kept[0]),
    "dict": (lambda net: dict(net.named_parameters()), lambda net: net.kept["scale"]),
    "list in a dict in a list": (lambda net: [{"x": [net.scale]}], lambda net: net.kept[0]["x"][0]),
    "deque": (lambda net: deque([net.scale]), lambda net: net.kept[0]),
    "object": (lambda net: SimpleNamespace(s=net.scale), lambda net: net.kept.s),
    "keyword of a partial": (lambda net: partial(dict, s=net.scale), lambda net: net.kept()["s"]),
    "method": (lambda net: net.scale_of, lambda net: net.kept()),
    "method of an object": (lambda net: Reads(net).read, lambda net: net.kept()),
    "partial of a method": (lambda net: partial(net.scale_of, 1.0), lambda net: net.kept()),
    "the module in a tuple": (lambda net: (net,), lambda net: net.kept[0].scale),
    "its layer in a list": (lambda net: [net.a], lambda net: net.scale),
    "list in a named tuple": (lambda net: Pair([net.scale], 2), lambda net: net.kept.first[0]),
}
THE_CURE = (lambda net: None, lambda net: net.scale)
REFUSED = {  # the same, and the message
    "lambda": (lambda net: lambda: net.scale, lambda net: net.kept(), "kept .its variable net.: leads to the module"),
    "lambda in a list": (lambda net: [lambda: net.scale], lambda net: net.kept[0](), r"kept\[0\] .its variable net"),
    "lambda of a parameter": (
        lambda net: (lambda scale: lambda: scale)(net.scale),
        lambda net: net.kept(),
        "kept .its variable scale.: is scale before",
    ),
    "default value": (lambda net: lambda s=net.scale: s, lambda net: net.kept(), "kept .a default value.: is scale"),
    "lambda in a lambda": (
        lambda net: (lambda inner: lambda: inner())(lambda: net.scale),
        lambda net: net.kept(),
        "kept .its variable inner. .its variable net",
    ),
    "method put on it": (
        lambda net: MethodType(lambda self, other=net: other.scale, net),
        lambda net: net.kept(),
        "kept .a method. .a default value.: leads to the module",
    ),
    "tuple": (lambda net: (net.scale,), lambda net: net.kept[0], r"kept\[0\]: is scale before"),
    "named tuple": (lambda net: Pair(net.scale, 1), lambda net: net.kept.first, r"kept\[0\]: is scale before"),
    "argument of a partial": (
        lambda net: partial(torch.clone, net.scale),
        lambda net: net.kept(),
        "kept .a partial.: is scale",
    ),
    "view": (lambda net: [net.scale.detach()], lambda net: net.kept[0], r"kept\[0\]: is a view of scale before"),
    "transposed": (lambda net: net.scale[None], lambda net: net.kept, "kept: is a view of scale before"),
    "data": (lambda net: {"x": net.scale.data.view(1)}, lambda net: net.kept["x"], "is a view of scale before"),
    "weak reference": (lambda net: weakref.ref(net.scale), lambda net: net.kept(), "kept .a weak reference.: is scale"),
    "weak reference of the module": (lambda net: weakref.ref(net), lambda net: net.kept().scale, "leads to the module"),
    "object with slots": (
        lambda net: Slotted(net.scale),
        lambda net: net.kept.value,
        "kept.value: is scale before a task",
    ),
    "computed before": (lambda net: 2 * net.scale, lambda net: net.kept / 2, "forward pass reads kept"),
    "class": (Holder, lambda net: type(net.kept).value, "forward pass reads scale"),
    "array": (
        lambda net: net.scale.detach().numpy(),
        lambda net: torch.from_numpy(net.kept),
        "kept: is a view of scale",
    ),
    "iterator": (
        lambda net: net.parameters,
        lambda net: GLOBAL[0].scale,
        "global variable GLOBAL.*leads to the module",
    ),
}
GLOBAL: list[Any] = []


def tasks_of_vectors() -> Task:
    torch.manual_seed(1)
    return Task(*(Batch(torch.randn(TASKS, n, 5, dtype=F64), torch.randn(TASKS, n, 2, dtype=F64)) for n in (4, 3)))


def by_hand(forward, theta, tasks, loss=fmaml.mse):
    """The meta-gradient by plain autograd; forward(params, x), one task after the other."""
    start = {name: p.detach().clone().requires_grad_() for name, p in theta.items()}
    total = torch.zeros((), dtype=F64)
    for i in range(TASKS):
        task, p = take(tasks, i), dict(start)
        for _ in range(STEPS):
            grads = torch.autograd.grad(
                loss(forward(p, task.support.x), task.support.y), [*p.values()], create_graph=True
            )
            p = {name: v - LR * g for (name, v), g in zip(p.items(), grads, strict=True)}
        total = total + loss(forward(p, task.query.x), task.query.y) / TASKS
    return dict(zip(start, torch.autograd.grad(total, list(start.values())), strict=True))


def meta_gradient(module, tasks, batching, **options):
    model = fmaml.from_module(module, **options)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=LR, steps=STEPS)
    return fmaml.meta_grad(algorithm, model.init(torch.Generator()), tasks, batching=batching)[0]


def check_right(module, forward=scaled):
    tasks = tasks_of_vectors()
    right = by_hand(forward, dict(module.named_parameters()), tasks)
    for batching in ("vmap", "loop"):
        assert relative(meta_gradient(module, tasks, batching), right) < 1e-12


@pytest.mark.parametrize("name", RIGHT)
def test_a_parameter_kept_elsewhere_as_well_is_that_of_the_task(name):
    net = Scaled(*RIGHT[name]).to(F64)
    check_right(net)
    assert torch.equal(
        net(torch.ones(1, 5, dtype=F64)), scaled(dict(net.named_parameters()), torch.ones(1, 5, dtype=F64))
    )


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_parameter_that_python_leads_to_is_refused_with_a_cure_that_works(name, batching):
    way, get, message = REFUSED[name]
    net = Scaled(way, get).to(F64)
    GLOBAL[:] = [net]
    with pytest.raises(ValueError, match=rf"(?s)from_module\(Scaled\): .*{message}.*method of a class of nn.Module"):
        meta_gradient(net, tasks_of_vectors(), batching)
    check_right(Scaled(*THE_CURE).to(F64))


class Hooked(nn.Sequential):
    """The cure of hooks and replaced methods: the same in the forward pass of a class."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self[0].bias[:1]


def sequential(kind=nn.Sequential) -> Any:
    return kind(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).to(F64)


def with_hook(net, kind):
    bias = lambda: net[0].bias[:1]  # noqa: E731
    if kind == "forward hook":
        net[2].register_forward_hook(lambda layer, x, y: y * net[0].bias[:1])
    elif kind == "forward hook with kwargs":
        net.register_forward_hook(lambda layer, x, k, y: y * bias(), with_kwargs=True)
    elif kind == "forward pre hook":
        net[2].register_forward_pre_hook(lambda layer, x: (x[0] * bias(),))
    elif kind == "replaced forward":
        old = net[2].forward
        net[2].forward = lambda x: old(x) * 2
    elif kind == "compiled method":
        net[2].fast = torch.compile(net[2].forward, backend="eager")
    return net


@pytest.mark.parametrize(
    "kind", ["forward hook", "forward hook with kwargs", "forward pre hook", "replaced forward", "compiled method"]
)
def test_a_hook_that_leads_to_the_module_is_refused_with_a_cure_that_works(kind):
    net = with_hook(sequential(), kind)
    with pytest.raises(ValueError, match=r"(?s)\(Sequential\): .*leads to the module.*method of a class of nn.Module"):
        fmaml.from_module(net)

    def forward(p, x):
        return F.linear(F.linear(x, p["0.weight"], p["0.bias"]).tanh(), p["2.weight"], p["2.bias"]) * p["0.bias"][:1]

    check_right(sequential(Hooked), forward)


def test_a_hook_that_leads_nowhere_is_called():
    net, seen = sequential(), []
    net[0].register_forward_hook(lambda layer, x, y: seen.append(1) or 2 * y)
    check_right(
        net, lambda p, x: F.linear((2 * F.linear(x, p["0.weight"], p["0.bias"])).tanh(), p["2.weight"], p["2.bias"])
    )
    assert seen


class Keeps(nn.Sequential):
    """Keeps an activation of each call, and may use that of the call before."""

    before: Any = None
    uses = False

    def forward(self, input: Tensor) -> Tensor:
        h = self[1](self[0](input))
        if self.uses and self.before is not None:
            h = h + self.before.mean()
        self.before = h
        return self[2](h)


def plain(p, x):
    return F.linear(F.linear(x, p["0.weight"], p["0.bias"]).tanh(), p["2.weight"], p["2.bias"])


def test_a_module_may_keep_an_activation_but_not_use_it_later():
    net = sequential(Keeps)
    net(torch.ones(4, 5, dtype=F64))
    check_right(net, plain)
    check_right(fmaml.to_module(net, {"0.bias": torch.zeros(4)}), plain)
    net = sequential(Keeps)
    net.uses = True
    with pytest.raises(
        ValueError, match=r"from_module\(Keeps\): a second call with the same input gives other numbers"
    ):
        meta_gradient(net, tasks_of_vectors(), "vmap")


def test_pruned_weights_stay_pruned():
    net = sequential()
    nn.utils.prune.random_unstructured(net[0], "weight", 0.3)
    net(torch.ones(4, 5, dtype=F64))
    mask = net[0].weight_mask.clone()

    def forward(p, x):
        return F.linear(F.linear(x, p["0.weight_orig"] * mask, p["0.bias"]).tanh(), p["2.weight"], p["2.bias"])

    check_right(net, forward)


class Remembers(nn.Module):
    """Changes something at each call."""

    def __init__(self, change):
        super().__init__()
        self.o, self.change = nn.Linear(5, 2).to(F64), change
        self.calls, self.state, self.late, self.history = 1, torch.zeros(5, dtype=F64), 0, [1.0]
        self.register_buffer("mean", torch.zeros(5, dtype=F64))

    def forward(self, x):
        return self.o(self.change(self, x))


def counts(net, x):
    net.calls += 1
    return x / net.calls


def counts_in_a_list(net, x):
    net.history.append(1.0)
    return x / sum(net.history)


def averages(net, x):
    net.state = 0.9 * net.state + 0.1 * x.mean(0)
    return x - net.state


def averages_in_place(net, x):
    net.state.mul_(0.9).add_(x.detach().mean(0))
    return x - net.state


def warms_up(net, x):
    net.late += 1
    return x if net.late < 10 else 2 * x


def reassigns(net, x):
    net.mean = 0.9 * net.mean + 0.1 * x.mean(0)
    return x


def changes(net, x):
    net.mean += 1
    return x


STATEFUL = {
    "counter": (counts, "a second call with the same input gives other numbers"),
    "list": (counts_in_a_list, "a second call with the same input gives other numbers"),
    "average": (averages, "a second call with the same input gives other numbers"),
    "average in place": (averages_in_place, "a second call with the same input gives other numbers"),
    "counter that matters later": (warms_up, "each call changes late"),
    "buffer reassigned": (reassigns, "a call sets mean, which is not kept"),
    "buffer in place": (changes, "a call changes a buffer or a frozen parameter in place"),
}


class GivenTheMean(nn.Linear):
    """The cure: the state is a part of x."""

    def forward(self, input: Tensor, mean: Tensor | None = None) -> Tensor:
        return super().forward(input if mean is None else input - mean)


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_module_that_changes_itself_is_refused_with_a_cure_that_works(name, batching):
    change, message = STATEFUL[name]
    with pytest.raises(ValueError, match=rf"from_module\(Remembers\): {message}.*give it as a part of x"):
        meta_gradient(Remembers(change), tasks_of_vectors(), batching)
    tasks, net = tasks_of_vectors(), GivenTheMean(5, 2).to(F64)
    means = {n: torch.randn(TASKS, 5, dtype=F64) for n in ("support", "query")}
    given = Task(*(batch._replace(x=(batch.x, means[n])) for n, batch in zip(means, tasks, strict=True)))
    right = by_hand(lambda p, x: F.linear(x[0] - x[1], p["weight"], p["bias"]), dict(net.named_parameters()), given)
    assert relative(meta_gradient(net, given, batching), right) < 1e-12


def test_a_refused_module_is_refused_again():
    model = fmaml.from_module(Remembers(warms_up))
    for _ in range(2):
        with pytest.raises(ValueError, match="each call changes late"):
            model.apply(model.init(torch.Generator()), torch.ones(2, 5, dtype=F64))


GRADIENT_HOOKS = {
    "mask": lambda net: net[0].weight.register_hook(lambda g: g * 0),
    "after accumulation": lambda net: net[0].weight.register_post_accumulate_grad_hook(lambda p: None),
    "of a layer": lambda net: net[0].register_full_backward_hook(lambda layer, given, taken: None),
    "before that of a layer": lambda net: net[0].register_full_backward_pre_hook(lambda layer, given: None),
}


class Masked(nn.Sequential):
    """The cure of a mask of the gradient."""

    def forward(self, input: Tensor) -> Tensor:
        w, mask = self[0].weight, (torch.arange(5) < 3).to(F64)
        h = F.linear(input, w * mask + (w * (1 - mask)).detach(), self[0].bias)
        return self[2](h.tanh())


@pytest.mark.parametrize("name", GRADIENT_HOOKS)
def test_hooks_on_gradients_are_refused_with_a_cure_that_works(name):
    net = sequential()
    handle = GRADIENT_HOOKS[name](net)
    with pytest.raises(ValueError, match=r"0 \(Linear\): has a .*hook.*, which torch.func does not call; remove it"):
        fmaml.from_module(net)
    handle.remove()
    check_right(net, plain)


def test_the_mask_of_the_cure_freezes_part_of_a_weight():
    net, tasks = sequential(Masked), tasks_of_vectors()
    theta = {name: p.detach().clone() for name, p in net.named_parameters()}
    fixed = theta["0.weight"][:, 3:].clone()

    def forward(p, x):
        w = torch.cat([p["0.weight"][:, :3], fixed], 1)
        return F.linear(F.linear(x, w, p["0.bias"]).tanh(), p["2.weight"], p["2.bias"])

    right = by_hand(forward, theta, tasks)
    for batching in ("vmap", "loop"):
        found = meta_gradient(net, tasks, batching)
        assert relative(found, right) < 1e-12
        assert not found["0.weight"][:, 3:].any()


WRAPPED = {  # how the network was wrapped, and the network within
    "data parallel": (nn.DataParallel, lambda net: net.module, "DataParallel.*spreads its batch"),
    "compiled": (partial(torch.compile, backend="eager"), lambda net: net._orig_mod, "OptimizedModule.*is compiled"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_modules_are_refused_with_a_cure_that_works(name):
    wrap, within, message = WRAPPED[name]
    net = sequential()
    with pytest.raises(ValueError, match=message):
        fmaml.from_module(wrap(net))
    with pytest.raises(ValueError, match=message):
        fmaml.from_module(nn.Sequential(wrap(net)))
    check_right(within(wrap(net)), plain)


@pytest.mark.filterwarnings("ignore")  # scripting is deprecated, and still in use
def test_scripted_modules_are_refused_with_a_cure_that_works():
    net = sequential()
    for scripted in (torch.jit.script(net), torch.jit.trace(net, torch.ones(1, 5, dtype=F64))):
        with pytest.raises(ValueError, match="is scripted; give the module before"):
            fmaml.from_module(scripted)
    check_right(net, plain)


def test_a_module_compiled_in_place_is_right():
    net = sequential()
    net.compile(backend="eager")
    check_right(net, plain)
