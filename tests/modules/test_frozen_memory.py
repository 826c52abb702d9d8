"""What is frozen is held once: the memory of a meta-step does not grow with the tasks by copies of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fmaml

WIDTH, TASKS = 1024, 16


def network() -> nn.Module:
    """A base of 8 MiB, whose activations are small beside it, and a head."""
    base = [nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)]
    return nn.Sequential(*base, nn.Linear(WIDTH, 8))


BASE_BYTES = sum(4 * p.numel() for p in network().parameters())


def peaks(monkeypatch, patterns: list[str], batching: Any, steps: int) -> tuple[int, int]:
    """The most bytes of tensors in a meta-gradient over one task, and over many; the base itself is in both."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from counted import peak_bytes

    model = fmaml.from_module(network(), trainable=patterns)
    algorithm = fmaml.maml(fmaml.supervised(model.apply, fmaml.mse), inner_lr=0.1, steps=steps)
    theta = algorithm.init(model.init(torch.Generator()))

    def step(count: int):
        batch = fmaml.Batch(torch.rand(count, 2, WIDTH), torch.rand(count, 2, 8))
        return lambda: fmaml.meta_grad(algorithm, theta, fmaml.Task(batch, batch), batching=batching)

    step(1)()  # what is made once for all calls
    one, many = (peak_bytes(step(count)) for count in (1, TASKS))
    return one, many


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("batching", ["vmap", "loop"])
def test_a_task_adds_no_copy_of_what_is_frozen(monkeypatch, batching, steps):
    one, many = peaks(monkeypatch, ["4.*"], batching, steps)
    assert BASE_BYTES <= one < 1.1 * BASE_BYTES
    assert (many - one) / (TASKS - 1) < 0.1 * BASE_BYTES  # activations and heads
    if batching == "loop":
        assert many < 1.1 * one


def test_in_theta_each_task_has_its_own(monkeypatch):
    one, many = peaks(monkeypatch, ["*"], "vmap", 1)
    assert (many - one) / (TASKS - 1) > 2 * BASE_BYTES  # so that the test above can fail
