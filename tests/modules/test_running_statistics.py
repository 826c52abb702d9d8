"""Running statistics as explicit state: torch's own of a forward pass in training mode, for each task its own."""

import copy

import pytest
import torch
from problems import F64, relative
from torch import nn
from torch.func import vmap

import fmaml
from fmaml.modules.running_statistics import running_statistics
from fmaml.tree import take


def network(momentum: float | None = 0.1) -> nn.Module:
    """Norms of two kinds between layers, in float64."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True, momentum=momentum),  # pyright: ignore
        nn.Conv2d(3, 3, 1),
        nn.BatchNorm2d(3, momentum=momentum),
        nn.Flatten(),
        nn.Linear(48, 4),
        nn.BatchNorm1d(4, momentum=momentum),
    ).double()


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_they_are_those_that_torch_writes_into_a_module(momentum):
    module = network(momentum).train()
    writing, statistics = copy.deepcopy(module), None
    for _ in range(3):
        x = torch.randn(5, 2, 4, 4, dtype=F64) * 3 + 1
        writing(x)
        statistics = running_statistics(module, {}, x, statistics)
    assert statistics is not None
    expected = dict(writing.named_buffers())
    assert statistics.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(statistics[name], value, rtol=1e-13, atol=1e-15), name
    assert int(module[3].num_batches_tracked) == 0  # pyright: ignore  # the module is not changed


def test_each_task_has_its_own_from_its_phi_and_its_support_set():
    module = network()
    model = fmaml.from_module(module, running_stats="batch")
    theta = model.init(torch.Generator())
    phis = {name: value + torch.randn(3, *value.shape, dtype=F64) for name, value in theta.items()}
    x = torch.randn(3, 5, 2, 4, 4, dtype=F64)
    stacked = vmap(lambda phi, x: running_statistics(module, phi, x))(phis, x)
    for i in range(3):
        alone = running_statistics(module, take(phis, i), x[i])
        assert all(torch.allclose(stacked[name][i], value, rtol=1e-13, atol=1e-14) for name, value in alone.items())


def test_a_module_with_them_is_what_frozen_statistics_use():
    module = network()
    x = torch.randn(5, 2, 4, 4, dtype=F64)
    phi = {"5.bias": torch.ones(4, dtype=F64)}
    known = fmaml.to_module(module, {**phi, **running_statistics(module, phi, x)})
    writing = fmaml.to_module(module, phi).train()
    with torch.no_grad():
        writing(x)
    model = fmaml.from_module(known, running_stats="frozen")
    with torch.no_grad():
        expected = writing.eval()(x)
        assert relative(known.eval()(x), expected) < 1e-13
    assert relative(model.apply(model.init(torch.Generator()), x), expected) < 1e-13


def test_dropout_before_a_norm_drops_by_keys_or_not_at_all():
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).double()
    x = torch.rand(1000, 3, dtype=F64) + 1
    still, keyed = (
        running_statistics(module, {}, batch)["1.running_var"] for batch in (x, fmaml.Keyed(x, torch.arange(1000)))
    )
    assert torch.allclose(still, 0.9 + 0.1 * x.var(0))
    assert (keyed > still + 0.1).all()  # the variance of x times 0 or 2


class Twice(nn.Module):
    """One norm for two places."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.norm(x) + 2)


def test_a_layer_that_is_called_twice_is_updated_twice():
    module = Twice().double()
    writing, x = copy.deepcopy(module).train(), torch.rand(6, 3, dtype=F64)
    writing(x)
    for name, value in running_statistics(module, {}, x).items():
        assert torch.allclose(value, dict(writing.named_buffers())[name], rtol=1e-13, atol=1e-15), name


class ByName(nn.Module):
    """Calls a norm by the name of its argument."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(input=x)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.InstanceNorm1d(3, track_running_stats=True), torch.rand(3, 5, dtype=F64)),
        (nn.InstanceNorm1d(3, track_running_stats=True), torch.rand(4, 3, 5, dtype=F64)),
        (ByName(), torch.rand(4, 3, dtype=F64)),
    ],
    ids=["unbatched", "batched", "by name"],
)
def test_any_way_of_calling_a_norm(module, x):
    writing = copy.deepcopy(module).double().train()
    writing(x)
    for name, value in running_statistics(module.double(), {}, x).items():
        assert torch.allclose(value, dict(writing.named_buffers())[name], rtol=1e-13, atol=1e-15), name


def test_what_has_no_statistics_is_refused():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    with pytest.raises(ValueError, match=r"1\.: one value for each channel has no variance"):
        running_statistics(module, {}, torch.rand(1, 2, dtype=F64))
    with pytest.raises(ValueError, match=r"2.weight is no parameter of the module"):
        running_statistics(module, {"2.weight": torch.zeros(1)}, torch.rand(4, 2, dtype=F64))
