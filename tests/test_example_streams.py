"""The two streams of `examples/streams/`, trained for seconds."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch

from fmaml.cli.main import main

TOP = Path(__file__).parent.parent
SMALL = ["train.meta_steps=2", "train.meta_batch=2", "train.validate_tasks=2", "eval.tasks=2", "--device", "cpu"]


@pytest.fixture
def streams(monkeypatch):
    """The module, with the checkout as the current folder."""
    monkeypatch.chdir(TOP)
    monkeypatch.syspath_prepend(str(TOP))
    return import_module("examples.streams.streams")


@pytest.mark.parametrize("name", ["drifting_wave", "changing_language"])
def test_each_is_trained(streams, name, tmp_path):
    assert main(["run", f"examples/streams/{name}.yaml", *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/report.html").exists()


def test_a_wave_drifts(streams):
    """Points that are drawn at one place in the first and the last half belong to waves of other phases."""
    tasks = streams.drifting_wave(seed=0, device=torch.device("cpu"), shots=64, drift=3.0).sample("test", 0, range(3))
    still = streams.drifting_wave(seed=0, device=torch.device("cpu"), shots=64, drift=0.0).sample("test", 0, range(3))
    assert torch.equal(tasks.support.x, still.support.x)
    time = torch.linspace(0, 1, 68)[:64, None]
    basis = torch.cat([still.support.x.sin(), still.support.x.cos()], -1).double()
    a, b = torch.linalg.lstsq(basis, still.support.y.double()).solution.unbind(1)  # A cos(phi), -A sin(phi)
    angle = still.support.x.double() - 3.0 * time
    expected = a[:, None] * angle.sin() + b[:, None] * angle.cos()
    assert torch.allclose(tasks.support.y.double(), expected, atol=1e-4)


def test_a_language_changes_half_way(streams):
    source = streams.changing_language(seed=0, device=torch.device("cpu"), symbols=3, shots=399, length=50)
    task = source.sample("test", 0, range(1))
    x, y = (torch.cat([getattr(batch, axis)[0] for batch in task]).flatten() for axis in "xy")
    assert torch.equal(x[1:], y[:-1])
    tables = []
    for part in (slice(0, 10_000), slice(10_000, 20_000)):
        counts = torch.zeros(3, 3).index_put_((x[part], y[part]), torch.ones(10_000), accumulate=True)
        tables.append(counts / counts.sum(1, keepdim=True))
    assert (tables[0] - tables[1]).abs().max() > 0.1
    assert math.isclose(float(tables[0].sum()), 3, abs_tol=1e-5)
