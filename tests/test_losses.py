import math
from typing import Any

import pytest
import torch
from torch.func import grad, vmap
from torch.nn import functional as F

import fmaml
from fmaml import Batch

pytestmark = pytest.mark.core


def test_cross_entropy_is_mean_negative_log_probability():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    assert float(fmaml.cross_entropy(logits, torch.tensor([1, 0]))) == pytest.approx(
        (-math.log(0.75) - math.log(0.5)) / 2
    )


def test_vmapped_cross_entropy_has_the_bits_of_torchs():
    """Also its second derivative, with rows that do not count."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 25, 5, generator=generator)
    y = torch.randint(-1, 5, (4, 25), generator=generator)

    def torchs(logits, y):
        return F.cross_entropy(logits, y, ignore_index=-1, reduction="sum") / (y >= 0).sum()

    def second(criterion):
        return grad(lambda z, y: grad(criterion)(z, y).square().sum())

    forms: list[Any] = [lambda criterion: criterion, grad, second]
    for of in forms:
        assert torch.equal(vmap(of(fmaml.cross_entropy))(logits, y), vmap(of(torchs))(logits, y))


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


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_diverged_network_has_no_accuracy(bad):
    """The largest of NaN is the first: it would score as chance."""
    logits, y = torch.tensor([[2.0, 1.0], [bad, 1.0]]), torch.tensor([0, 0])
    assert fmaml.accuracy(logits, y).isnan()
    assert vmap(fmaml.accuracy)(logits[None], y[None]).isnan().all()
    assert float(fmaml.accuracy(logits, torch.tensor([0, -1]))) == 1  # a row that does not count may be anything
    assert fmaml.cross_entropy(logits, y).isnan() or bad == torch.inf
    absent = torch.tensor([[2.0, -torch.inf], [0.5, -torch.inf]])  # a class that the task does not have
    assert float(fmaml.accuracy(absent, y)) == 1


@pytest.mark.parametrize("criterion", [fmaml.cross_entropy, fmaml.bits, fmaml.accuracy])
def test_labels_are_one_int64_a_row_and_negative_ones_do_not_count(criterion):
    logits, y = torch.randn(3, 4), torch.tensor([0, 3, 1])
    for wrong in (y[:, None], y.int(), y > 1, y.float(), y[:2]):
        with pytest.raises(ValueError, match=r"labels y must be int64 \[3\], one for each row of the logits \[3, 4\]"):
            criterion(logits, wrong)
        with pytest.raises(ValueError, match="labels y must be int64"):
            vmap(criterion)(logits[None], wrong[None])
    for ignored in (-1, -100):
        assert criterion(logits, torch.tensor([0, ignored, ignored])) == criterion(logits[:1], y[:1])


@pytest.mark.parametrize("criterion", [fmaml.cross_entropy, fmaml.bits])
def test_without_a_label_that_counts_the_loss_and_its_derivatives_are_0(criterion):
    logits, none = torch.randn(2, 3, 4), torch.tensor([[-1, -100, -1], [0, 3, -1]])
    slope = grad(lambda z: vmap(criterion)(z, none).sum())
    assert (vmap(criterion)(logits, none) == 0).tolist() == [True, False]
    assert (slope(logits)[0] == 0).all()
    assert (slope(logits)[1, :2] != 0).all()
    assert grad(lambda z: slope(z).square().sum())(logits).isfinite().all()
    assert fmaml.accuracy(logits[0], none[0]).isnan()  # there is nothing to score
