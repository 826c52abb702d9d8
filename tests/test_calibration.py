"""Calibration against its definitions, and the share of refused pictures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import fmaml
from fmaml.calibration import (
    Calibration,
    auroc,
    calibration_error,
    class_means,
    distance_to_nearest,
    fit_temperature,
    last_layer,
    quantiles_of,
    read_calibration,
    seen_features,
)

pytestmark = pytest.mark.core


def numbers(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_auroc_counts_pairs(known, unknown):
    pairs = [(u > k) + 0.5 * (u == k) for k in known for u in unknown]
    found = auroc(torch.tensor(known).float(), torch.tensor(unknown).float())
    assert found.item() == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0, 20.0])
def test_the_temperature_by_which_logits_were_scaled_is_found(temperature):
    """Labels are drawn by softmax(logits), and the network gives temperature * logits."""
    logits = 2 * torch.randn(40_000, 5, generator=numbers(0), dtype=torch.float64)
    y = torch.multinomial(logits.softmax(1), 1, generator=numbers(1))[:, 0]
    assert fit_temperature(temperature * logits, y).item() == pytest.approx(temperature, rel=0.03)


def test_the_temperature_has_the_least_cross_entropy():
    logits = 4 * torch.randn(200, 3, generator=numbers(2), dtype=torch.float64)
    y = torch.randint(3, (200,), generator=numbers(3)).where(
        torch.rand(200, generator=numbers(4)) < 0.4, logits.argmax(1)
    )
    best = fit_temperature(logits, y)
    losses = [F.cross_entropy(logits / (best * factor), y).item() for factor in (0.99, 1.0, 1.01)]
    assert losses[1] < min(losses[0], losses[2])


def test_the_temperature_is_bounded_if_every_answer_is_right_or_wrong():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])).item() == pytest.approx(0.01)
    assert fit_temperature(logits, torch.tensor([1, 0])).item() == pytest.approx(100.0)


def test_calibration_error_by_a_loop():
    confidence = torch.rand(500, generator=numbers(5), dtype=torch.float64)
    right = torch.rand(500, generator=numbers(6)) < 0.6
    total = 0.0
    for i in range(15):
        inside = [n for n in range(500) if i / 15 < confidence[n].item() <= (i + 1) / 15]
        if inside:
            share = sum(bool(right[n]) for n in inside) / len(inside)
            sure = sum(confidence[n].item() for n in inside) / len(inside)
            total += len(inside) / 500 * abs(share - sure)
    assert calibration_error(confidence, right).item() == pytest.approx(total, abs=1e-12)


def test_calibration_error_of_sure_and_wrong_answers_is_one():
    sure = torch.ones(3)
    assert calibration_error(sure, torch.zeros(3, dtype=torch.bool)).item() == 1.0
    assert calibration_error(sure, torch.ones(3, dtype=torch.bool)).item() == 0.0
    assert calibration_error(torch.zeros(1), torch.zeros(1, dtype=torch.bool)).item() == 0.0


@pytest.mark.parametrize("reject", [0.01, 0.05, 0.2, 0.5])
def test_the_share_of_refused_known_pictures_is_the_requested_one(reject):
    distances = torch.rand(2_000, generator=numbers(7)).square()
    calibration = Calibration(1.0, quantiles_of(distances).tolist())
    refused = (distances > calibration.limit(reject)).double().mean().item()
    assert refused == pytest.approx(reject, abs=1 / 2_000)


def test_quantiles_interpolate_between_few_distances():
    assert quantiles_of(torch.tensor([3.0, 1.0])).tolist() == pytest.approx(torch.linspace(1, 3, 101).tolist())
    assert quantiles_of(torch.tensor([2.0])).tolist() == [2.0] * 101


def test_none_of_these_is_half_at_the_limit_and_unlikely_for_a_typical_picture():
    calibration = Calibration(1.0, torch.linspace(0, 4, 101, dtype=torch.float64).tolist())
    distances = torch.tensor([2.0, 3.8, 100.0, 0.0], dtype=torch.float64)
    found = calibration.none_of_these(distances, 0.05)
    assert found[:3].tolist() == pytest.approx([1 / 362, 0.5, 1.0], abs=1e-9)
    assert found[3] < found[0]


def test_none_of_these_is_finite_if_all_known_pictures_are_equally_far():
    found = Calibration(1.0, [1.0] * 101).none_of_these(torch.tensor([0.9, 1.0, 1.1]), 0.05)
    assert found.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)
    assert Calibration(1.0, [0.0] * 101).none_of_these(torch.zeros(1), 0.05).tolist() == [0.5]


def test_features_are_the_inputs_of_the_last_layer():
    model = fmaml.mlp(inputs=(3,), outputs=2, hidden=(4,))
    params = model.init(numbers(8))
    x = torch.randn(6, 3, generator=numbers(9))
    head = last_layer(params, 2)
    assert head is not None
    found = seen_features(model.apply, params, x, 2)
    assert found.shape == (6, 4)
    rebuilt = found @ params[f"{head}.weight"].T + params[f"{head}.bias"]
    torch.testing.assert_close(rebuilt, model.apply(params, x))
    assert last_layer(params, 7) is None
    without_bias = {"head.weight": torch.ones(2, 3)}
    apply = lambda params, x: x @ params["head.weight"].T  # noqa: E731
    torch.testing.assert_close(seen_features(apply, without_bias, x, 2), apply(without_bias, x))


def test_distance_is_to_the_nearest_class_mean():
    found = torch.tensor([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    means = class_means(found, torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(means, torch.tensor([[1.0, 0.0], [9.0, 9.0]]))
    new = torch.tensor([[1.0, 2.0], [9.0, 8.0]])
    torch.testing.assert_close(distance_to_nearest(new, means, directions=False), torch.tensor([2.0, 1.0]))


def test_the_distance_of_directions_is_that_of_the_angle():
    """Features twice as long are as near; 60 degrees are a distance of 1, a right angle of sqrt(2)."""
    means = torch.tensor([[3.0, 0.0]])
    new = torch.tensor([[0.1, 0.0], [0.5, 0.75**0.5], [1.0, 3**0.5], [0.0, 5.0]])
    found = distance_to_nearest(new, means, directions=True)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 1.0, 2**0.5]))


@pytest.mark.parametrize(
    "found",
    [
        {"temperature": 0.0, "distances": [0.0, 1.0]},
        {"temperature": float("nan"), "distances": [0.0, 1.0]},
        {"temperature": 1.0, "distances": [1.0, 0.0]},
        {"temperature": 1.0, "distances": [-1.0, 0.0]},
        {"temperature": 1.0, "distances": [1.0]},
        {"temperature": 1.0, "distances": [1.0, float("inf")]},
    ],
)
def test_a_wrong_calibration_is_refused(found):
    with pytest.raises(ValueError, match="calibration"):
        read_calibration(found)


def test_a_calibration_is_read():
    assert read_calibration(None) is None
    assert read_calibration({"temperature": 2, "distances": [0, 1.5], "more": 1}) == Calibration(2.0, [0.0, 1.5])
    found = {"temperature": 2, "distances": [0, 1.5], "pictures": 7, "directions": True}
    assert read_calibration(found) == Calibration(2.0, [0.0, 1.5], 7, directions=True)
