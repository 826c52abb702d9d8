"""The layout in which `from_module` calls networks of images: no number depends on it, and no call on another."""

import pytest
import torch
from problems import F64, image_tasks, relative
from torch import nn
from torch.func import jvp, vmap
from torch.nn import functional as F

import fmaml
from fmaml.modules import from_module as module_file
from fmaml.torch_fixes import layout, norms
from fmaml.torch_fixes.convolution import conv2d
from fmaml.torch_fixes.max_pool import max_pool


class Viewed(nn.Module):
    """Flattens as many networks do, which torch can only in its usual layout."""

    def forward(self, x):
        return x.view(x.size(0), -1)


class Looked(nn.Module):
    """The identity; a test looks at what goes through it."""

    def forward(self, x):
        return x


def network(*after: nn.Module) -> fmaml.Model:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return fmaml.from_module(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.Tanh(), *after).to(F64))


NETWORKS = {
    "pooled to one": (network(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), "laid out"),
    "pooled to four": (network(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)), "laid out"),
    "viewed": (network(Viewed(), nn.Linear(144, 5)), "usual"),
    "max-pooled": (network(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)), "laid out"),
    "windows overlap": (network(nn.MaxPool2d(3, 2, padding=1), nn.Flatten(), nn.Linear(36, 5)), "laid out"),
}


@pytest.fixture(params=NETWORKS)
def case(request, monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    monkeypatch.setattr(norms, "LARGE_FEATURES", 0)
    seen: list[str] = []
    called = module_file.functional_call

    def spy(*args):
        seen.append("laid out" if args[2][0].stride(-1) > 1 else "usual")
        return called(*args)

    monkeypatch.setattr(module_file, "functional_call", spy)
    return *NETWORKS[request.param], seen


def meta_gradient(model, tasks):
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.cross_entropy), inner_lr=0.1, steps=2)
    return fmaml.meta_grad(algorithm, model.init(torch.Generator()), tasks)[0]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_the_meta_gradient_is_that_of_torchs_usual_layout(case, monkeypatch):
    model, expected, seen = case
    tasks = image_tasks(3, (1, 6, 6))
    meta_gradient(model, tasks)
    seen.clear()  # the first call checks the module, one task at a time
    found = meta_gradient(model, tasks)
    assert seen[-1] == expected
    assert (expected == "usual") == ("usual" in seen)
    monkeypatch.setattr(layout, "LARGE_IMAGES", 10**9)
    assert relative(found, meta_gradient(model, tasks)) < 1e-12


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_call_does_not_depend_on_those_before(case):
    """Else a resumed run would not have the bits of the uninterrupted one."""
    model, _, _ = case
    tasks = image_tasks(3, (1, 6, 6))
    first = meta_gradient(model, tasks)
    meta_gradient(model, image_tasks(2, (1, 6, 6)))
    again = meta_gradient(model, tasks)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_derivatives_with_respect_to_the_images(case):
    model, expected, seen = case
    params = {name: p.expand(3, *p.shape) for name, p in model.init(torch.Generator()).items()}  # each task's own
    x, v = torch.randn(2, 3, 5, 1, 6, 6, dtype=F64)

    def total(x):
        return vmap(model.apply)(params, x).square().sum()

    slope = torch.func.grad(total)(x)
    assert seen[-1] == expected
    assert relative(jvp(total, (x,), (v,))[1], (slope * v).sum()) < 1e-12


def test_pooling_to_one_position_has_a_vmap_rule_in_both_layouts(recwarn, monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    meta_gradient(NETWORKS["pooled to one"][0], image_tasks(3, (1, 6, 6)))
    assert not [warning for warning in recwarn if "performance drop" in str(warning.message)]


def test_a_parametrized_convolution_is_laid_out_too(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3, padding=1))
    model, seen = fmaml.from_module(nn.Sequential(convolution, Looked(), nn.Flatten(), nn.Linear(144, 5)).to(F64)), []
    params = {name: p.expand(3, *p.shape) for name, p in model.init(torch.Generator()).items()}
    model.apply(model.init(torch.Generator()), torch.randn(5, 1, 6, 6, dtype=F64))  # the first call checks the module
    monkeypatch.setattr(Looked, "forward", lambda self, x: seen.append(layout.is_laid_out(x)) or x)
    vmap(model.apply)(params, torch.randn(3, 5, 1, 6, 6, dtype=F64))
    assert seen == [True]


def test_a_convolution_without_parameters_stays_in_the_usual_layout():
    convolution = nn.Conv2d(1, 4, 3, padding=1, bias=False)
    weight = convolution.weight.detach()
    del convolution.weight
    convolution.register_buffer("weight", weight)
    module = nn.Sequential(convolution, nn.Flatten(), nn.Linear(144, 5))
    model, x = fmaml.from_module(module), torch.randn(2, 1, 6, 6)
    assert torch.equal(model.apply(model.init(torch.Generator()), x), module(x))


def test_modules_take_the_convolution_and_the_pooling():
    assert {F.conv2d: conv2d, F.max_pool2d: max_pool} == module_file.FAST


def test_an_error_of_the_network_is_the_networks(monkeypatch):
    monkeypatch.setattr(layout, "LARGE_IMAGES", 0)
    model = network(nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model.apply(model.init(torch.Generator()), torch.zeros(2, 1, 6, 6, dtype=F64))
