"""Mean, standard deviation and t-interval against closed forms, scipy and numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmaml.sweep.statistics import spread, t_quantile, within


@pytest.mark.parametrize("p", [0.5, 0.9, 0.95, 0.99])
def test_one_and_two_degrees_of_freedom_have_closed_forms(p):
    assert t_quantile(1, p) == pytest.approx(math.tan(math.pi * p / 2), rel=1e-12)
    assert t_quantile(2, p) == pytest.approx(p * math.sqrt(2 / (1 - p * p)), rel=1e-12)


def test_quantiles_are_those_of_scipy_and_of_the_normal_distribution_at_last():
    for degrees in range(1, 100):
        assert t_quantile(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), rel=1e-10)
    assert t_quantile(100_000) == pytest.approx(1.959964, rel=1e-4)


@given(st.floats(0, 50), st.integers(1, 60))
def test_probabilities_are_those_of_scipy(t, degrees):
    assert within(t, degrees) == pytest.approx(2 * float(stats.t.cdf(t, degrees)) - 1, abs=1e-9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_the_spread_is_that_of_numpy(values):
    found = spread(values, [1.0] * len(values))
    assert found.mean == pytest.approx(float(np.mean(values)), abs=1e-9)
    assert found.sd == pytest.approx(float(np.std(values, ddof=1)), abs=1e-9)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    assert found.t95 == pytest.approx(half, abs=1e-6)
    assert found.ci95 == pytest.approx(1.0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 3))
    found = [spread(list(row)) for row in draws]
    covered = np.mean([abs(f.mean - 3.0) <= f.t95 for f in found if f.mean is not None and f.t95 is not None])
    assert 0.94 < covered < 0.96


def test_what_cannot_be_had_is_none():
    assert spread([2.0], [0.5]) == (2.0, None, None, 0.5)
    assert spread([2.0, None], [0.5, None]) == (None, None, None, None)
    assert spread([2.0, math.inf]) == (None, None, None, None)
    assert spread([]) == (None, None, None, None)
