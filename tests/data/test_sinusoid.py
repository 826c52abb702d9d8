"""Sine waves: the published ranges, tasks by counters alone, and a truth that is recovered exactly."""

import math

import pytest
import torch

from fmaml.data.sources.sinusoid import fit_wave, sinusoid
from fmaml.tree import leaves, take

CPU = torch.device("cpu")


def amplitude_and_phase(batch):
    """y = a sin(x) + b cos(x) = A sin(x - phi), solved from the points."""
    x, y = batch.x.double(), batch.y.double()
    a, b = torch.linalg.lstsq(torch.cat([x.sin(), x.cos()], -1), y).solution.flatten(1).T
    return (a**2 + b**2).sqrt(), torch.atan2(-b, a)


def test_shapes_and_ranges():
    tasks = sinusoid(seed=0, device=CPU, shots=10, queries=20).sample("train", 1, range(2000))
    assert [leaf.shape for leaf in leaves(tasks)] == [(2000, 10, 1)] * 2 + [(2000, 20, 1)] * 2
    x = torch.cat([tasks.support.x, tasks.query.x], 1)
    assert float(x.min()) >= -5
    assert float(x.max()) <= 5
    assert float(x.mean()) == pytest.approx(0, abs=0.05)
    assert float(x.std()) == pytest.approx(10 / math.sqrt(12), rel=0.01)
    amplitude, phase = amplitude_and_phase(tasks.query)
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, math.pi)):
        assert float(values.min()) >= low - 1e-4
        assert float(values.max()) <= high + 1e-4
        assert float(values.mean()) == pytest.approx((low + high) / 2, rel=0.03)
        assert float(values.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.03)


def test_support_and_query_lie_on_one_wave():
    tasks = sinusoid(seed=0, device=CPU).sample("test", 0, range(5))
    for i in range(5):
        task = take(tasks, i)
        assert torch.allclose(fit_wave(task.query)(task.support.x), task.support.y.double(), atol=1e-5)


def test_tasks_are_a_function_of_seed_split_step_and_number():
    source = sinusoid(seed=3, device=CPU)
    whole, part = source.sample("train", 7, range(8)), source.sample("train", 7, range(2, 5))
    assert torch.equal(whole.query.y[2:5], part.query.y)
    others = [source.sample("train", 8, range(8)), source.sample("val", 7, range(8))]
    others.append(sinusoid(seed=4, device=CPU).sample("train", 7, range(8)))
    assert not any(torch.equal(whole.query.y, other.query.y) for other in others)
    assert len({float(y) for y in whole.query.y[:, 0]}) == 8
