"""On a GPU a run asks for deterministic algorithms; nothing is changed for a CPU."""

import os
from typing import Any, cast

import pytest
import torch

from fmaml.training.determinism import make_deterministic

DETERMINISTIC = cast(Any, torch.utils.deterministic)


@pytest.fixture
def _restored(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fills = DETERMINISTIC.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    DETERMINISTIC.fill_uninitialized_memory = fills


@pytest.mark.usefixtures("_restored")
def test_a_gpu_is_asked_for_deterministic_algorithms():
    make_deterministic(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    make_deterministic(torch.device("cuda:0"))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not DETERMINISTIC.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
