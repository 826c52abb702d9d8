"""The result of a check on a GPU is copied when it is launched, and awaited only when it is read."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from fmaml.training.nan_guard import AsyncFlag


@pytest.mark.parametrize("truth", [True, False])
def test_on_a_cpu_it_is_the_flag(truth):
    assert bool(AsyncFlag(torch.tensor(truth))) is truth


@pytest.mark.parametrize("truth", [True, False])
def test_on_a_gpu_it_waits_for_its_own_event(monkeypatch, truth):
    happened: list[str] = []
    kept = torch.tensor(not truth)

    def copy(flag: Any, non_blocking: bool) -> Any:
        happened.append(f"copied, non_blocking={non_blocking}")
        return kept

    def arrive() -> None:
        happened.append("awaited")
        kept.fill_(truth)

    pinned = SimpleNamespace(copy_=copy)
    monkeypatch.setattr(torch, "empty", lambda shape, *, dtype, pin_memory: pinned if pin_memory else None)
    event = SimpleNamespace(record=lambda: happened.append("recorded"), synchronize=arrive)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    verdict = AsyncFlag(cast(torch.Tensor, SimpleNamespace(is_cuda=True)))
    assert happened == ["copied, non_blocking=True", "recorded"]
    assert bool(verdict) is truth
    assert happened[2:] == ["awaited"]
