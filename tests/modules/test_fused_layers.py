"""Norm, ReLU and pooling of an `nn.Sequential` as one operator: the same derivatives, and where it does not serve."""

from typing import Any

import pytest
import torch
from problems import F64, relative
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import fmaml
from fmaml.modules import fused_layers
from fmaml.modules.fused_layers import Sequential, pattern_of
from fmaml.native import compiled_kernels
from fmaml.torch_fixes import block, layout
from fmaml.torch_fixes.support_statistics import statistics_of, with_statistics

pytestmark = pytest.mark.skipif(compiled_kernels.kernels(F64) is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """The calls of the kernels; every size is large."""
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    found: list[str] = []
    call: Any = block._call
    monkeypatch.setattr(block, "_call", lambda name, *a, **k: found.append(name) or call(name, *a, **k))
    return found


def norm(width: int, **options: Any) -> nn.Module:
    layer = nn.BatchNorm2d(width, **{"track_running_stats": False, **options})
    for p in layer.parameters():
        nn.init.normal_(p)
    return layer


def network(*layers: nn.Module, width: int = 4) -> Any:
    """A convolution and these layers, then a linear layer."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *layers), nn.Flatten(), nn.LazyLinear(2)
    ).double()


def ready(module: Any) -> Any:
    module(torch.randn(2, 3, 9, 9, dtype=F64))  # gives the lazy layer its parameters
    return module


def meta_gradient(module: nn.Module, batching: Any = "vmap", running_stats: Any = "refuse") -> Any:
    torch.manual_seed(1)
    tasks = fmaml.Task(
        *(fmaml.Batch(torch.randn(3, n, 3, 9, 9, dtype=F64), torch.randn(3, n, 2, dtype=F64)) for n in (4, 5))
    )
    model = fmaml.from_module(module, running_stats=running_stats)
    maml = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=2)
    return fmaml.meta_grad(maml, model.init(torch.Generator()), tasks, batching=batching)[0]


def one_by_one(module: nn.Module, monkeypatch, **options: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(fused_layers, "is_fast", lambda *args: False)
        return meta_gradient(module, **options)


PATTERNS = {
    "norm": lambda: (norm(4),),
    "norm, ReLU": lambda: (norm(4), nn.ReLU()),
    "norm, ReLU in place, pooling": lambda: (norm(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    "norm, leaky ReLU, pooling of 3": lambda: (norm(4, eps=0.1), nn.LeakyReLU(0.2), nn.MaxPool2d((3, 3))),
    "norm, pooling": lambda: (norm(4), nn.MaxPool2d(2)),
    "twice": lambda: (norm(4), nn.ReLU(), nn.Conv2d(4, 4, 1), norm(4), nn.ReLU(), nn.MaxPool2d(2)),
}


@pytest.mark.parametrize("batching", ["vmap", "loop"])
@pytest.mark.parametrize("layers", PATTERNS)
def test_the_meta_gradient_is_that_of_the_layers_one_by_one(layers, batching, calls, monkeypatch):
    module = ready(network(*PATTERNS[layers]()))
    expected = one_by_one(module, monkeypatch, batching=batching)
    assert not calls
    found = meta_gradient(module, batching)
    assert set(calls) == {"forward", "gradient", "second"}
    assert relative(found, expected) < 1e-11


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.ReLU(), nn.MaxPool2d(2)], (2, 0.0, 2)),
        ([nn.LeakyReLU(0.1), nn.ReLU()], (1, 0.1, 1)),
        ([nn.MaxPool2d(2), nn.ReLU()], (1, 1.0, 2)),
        ([nn.ReLU(), nn.MaxPool2d(2, stride=1)], (1, 0.0, 1)),
        ([nn.ReLU(), nn.MaxPool2d((2, 3))], (1, 0.0, 1)),
        ([nn.ReLU(), nn.MaxPool2d(2, padding=1)], (1, 0.0, 1)),
        ([nn.ReLU(), nn.MaxPool2d(2, dilation=2)], (1, 0.0, 1)),
        ([nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)], (1, 0.0, 1)),
        ([nn.ReLU(), nn.MaxPool2d(2, return_indices=True)], (1, 0.0, 1)),
        ([nn.LeakyReLU(-0.1), nn.MaxPool2d(2)], (0, 1.0, 1)),
        ([nn.GELU(), nn.MaxPool2d(2)], (0, 1.0, 1)),
        ([], (0, 1.0, 1)),
    ],
)
def test_the_layers_that_one_operator_replaces(layers, expected):
    assert pattern_of(layers) == expected


@pytest.mark.parametrize(("hooked", "kernels"), [(2, {"forward", "gradient", "second"}), (1, set())])
def test_a_hook_sees_its_layer(hooked, kernels, calls):
    """A hook of the ReLU ends the fused layers before it, and one of the norm prevents them."""
    module, seen = ready(network(norm(4), nn.ReLU(), nn.MaxPool2d(2))), []
    module[0][hooked].register_forward_hook(lambda layer, args, y: seen.append(tuple(y.shape)))
    meta_gradient(module)
    assert set(calls) == kernels
    assert seen


def test_nothing_is_hidden_from_who_counts_operations(calls):
    model = fmaml.from_module(ready(network(norm(4), nn.ReLU())))
    with FlopCounterMode(display=False) as counter:
        model.apply(model.init(torch.Generator()), torch.randn(5, 3, 9, 9, dtype=F64))
    assert counter.get_total_flops() > 0
    assert not calls


def test_norms_with_stored_statistics_a_forward_of_ones_own_and_subclasses_run_as_they_are(calls, monkeypatch):
    class Norm(nn.BatchNorm2d):
        def forward(self, input):
            return 2 * super().forward(input)

    class Reversed(nn.Sequential):
        def forward(self, input):
            return self[0](self[2](self[1](input)))

    stored = ready(network(norm(4, track_running_stats=True), nn.ReLU()))
    meta_gradient(stored, running_stats="frozen")
    meta_gradient(ready(network(Norm(4, track_running_stats=False), nn.ReLU())))
    meta_gradient(ready(network(Reversed(nn.ReLU(), norm(4), nn.Tanh()))))
    meta_gradient(ready(network(norm(4, affine=False), nn.ReLU())))
    assert not calls
    assert (
        relative(meta_gradient(stored, running_stats="batch"), one_by_one(stored, monkeypatch, running_stats="batch"))
        < 1e-11
    )
    assert calls


def test_the_module_itself_and_its_names_stay(calls):
    module = ready(network(norm(4), nn.ReLU()))
    model = fmaml.from_module(module)
    assert not any(isinstance(layer, Sequential) for layer in module.modules())
    assert list(model.init(torch.Generator())) == [name for name, _ in module.named_parameters()]
    assert Sequential.__name__ == "Sequential"


def test_supplied_statistics(calls):
    """Those of a support set, given in the order of the norms' calls."""
    module = ready(network(norm(4), nn.ReLU(), nn.MaxPool2d(2)))
    model = fmaml.from_module(module)
    x, support = torch.randn(2, 3, 9, 9, dtype=F64), torch.randn(6, 3, 9, 9, dtype=F64)
    given = with_statistics(model.apply, statistics_of(model.apply, model.init(torch.Generator()), support))
    both = given(model.init(torch.Generator()), x)
    assert relative(both[:1], given(model.init(torch.Generator()), x[:1])) < 1e-11
    assert not calls
