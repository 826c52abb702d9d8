import math

import pytest
import torch

import fmaml
from fmaml import Batch

pytestmark = pytest.mark.core


def test_cross_entropy_is_mean_negative_log_probability():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    assert float(fmaml.cross_entropy(logits, torch.tensor([1, 0]))) == pytest.approx(
        (-math.log(0.75) - math.log(0.5)) / 2
    )


def test_mse_is_over_all_entries():
    assert float(fmaml.mse(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]))) == 2.5


def test_accuracy_counts_rows():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 9.0]])
    assert float(fmaml.accuracy(logits, torch.tensor([0, 1, 1, 1]))) == 0.75


def test_supervised_composes():
    loss_fn = fmaml.supervised(lambda p, x: p["w"] * x, fmaml.mse)
    assert float(loss_fn({"w": torch.tensor(2.0)}, Batch(torch.ones(3), torch.zeros(3)))) == 4


def test_mse_does_not_broadcast():
    with pytest.raises(ValueError, match=r"output \[3, 1\] and y \[3\]"):
        fmaml.mse(torch.zeros(3, 1), torch.zeros(3))
