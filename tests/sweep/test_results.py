"""Mean, standard deviation and t-interval against scipy and numpy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmaml.intervals import t95
from fmaml.sweep.results import spread


def test_quantiles_are_those_of_scipy_and_of_the_normal_distribution_at_last():
    for degrees in range(1, 100):  # one command starts 100 runs at most
        assert t95(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=1e-7)
    assert t95(10**9) == pytest.approx(float(stats.norm.ppf(0.975)), rel=1e-8)


def spread_of(values: Sequence[float | None], ci95: Sequence[float | None]) -> dict[str, Any]:
    return spread([{"mean": mean, "ci95": half} for mean, half in zip(values, ci95, strict=True)])


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_the_spread_is_that_of_numpy(values):
    found = spread_of(values, [1.0] * len(values))
    assert found["mean"] == pytest.approx(float(np.mean(values)), abs=1e-9)
    assert found["sd"] == pytest.approx(float(np.std(values, ddof=1)), abs=1e-9)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    assert found["t95"] == pytest.approx(half, rel=1e-7, abs=1e-6)
    assert found["ci95"] == pytest.approx(1.0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    found = [spread_of(list(row), [1.0] * 3) for row in draws]
    covered = np.mean([abs(one["mean"] - 3.0) <= one["t95"] for one in found])
    assert 0.94 < covered < 0.96


def test_what_is_not_defined_is_none():
    keys = ("mean", "sd", "t95", "ci95")
    assert spread_of([2.0], [0.5]) == dict(zip(keys, (2.0, None, None, 0.5), strict=True))
    for values, ci95 in (([2.0, None], [0.5, None]), ([2.0, math.inf], [0.5, math.nan]), ([], [])):
        assert spread_of(values, ci95) == dict.fromkeys(keys)
