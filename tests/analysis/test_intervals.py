"""Intervals against brute-force draws, SciPy's t and Welch tests, and what must hold of any interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emergence.analysis import intervals


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_interval_moments_are_those_of_hierarchical_draws():
    """The closed form against brute force: seeds drawn first, then prompts, the same for every seed."""
    x, draws = rng(1).gamma(0.5, size=(3, 12, 1)), 40_000
    seeds, n = x.shape[:2]
    pick_s = rng(2).integers(seeds, size=(draws, seeds))
    pick_p = rng(3).integers(n, size=(draws, n))
    drawn = np.array([x[s][:, p, 0].mean() for s, p in zip(pick_s, pick_p, strict=True)])
    m = intervals.moments(x)
    by_seed, by_prompt = x.mean(axis=1)[:, 0], x.mean(axis=0)[:, 0]
    rest = x[..., 0] - by_seed[:, None] - by_prompt + x.mean()
    # A draw's variance has n - 1 where an unbiased estimate has n, in each of the three parts.
    expected = by_seed.var() / seeds + by_prompt.var() / n + (rest**2).mean() / (seeds * n)
    assert drawn.mean() == pytest.approx(m.mean[0], rel=0.01)
    assert drawn.var() == pytest.approx(expected, rel=0.05)
    only_prompts = x.mean(axis=0)[:, 0][pick_p].mean(axis=1)
    assert ((only_prompts - only_prompts.mean()) ** 3).mean() == pytest.approx(m.third[0], rel=0.15)


def test_interval_of_one_seed_of_symmetric_data_is_student_t():
    half = rng().standard_normal((1, 20, 5))
    x = np.concatenate([half, -half], axis=1)  # symmetric: nothing moves the interval
    got = intervals.bootstrap(x)
    want = stats.ttest_1samp(x[0], 0).confidence_interval(0.95)
    np.testing.assert_allclose(got.low, want.low, rtol=1e-9)
    np.testing.assert_allclose(got.high, want.high, rtol=1e-9)


def test_interval_of_a_difference_of_classes_has_welch_degrees_of_freedom():
    a, b = rng().standard_normal((1, 14, 3)), 3 * rng(1).standard_normal((1, 40, 3))
    welch = stats.ttest_ind(a[0], b[0], equal_var=False)
    got = intervals.bootstrap(a, -b)
    np.testing.assert_allclose(got.df, welch.df, rtol=1e-9)
    np.testing.assert_allclose(got.estimate / got.se, welch.statistic, rtol=1e-9)


def test_interval_with_seeds_that_differ_is_as_wide_as_student_t_over_the_seeds():
    x = np.array([0.1, 0.2, 0.6])[:, None, None] + 1e-6 * rng().standard_normal((3, 50, 1))
    got = intervals.bootstrap(x)
    want = stats.ttest_1samp([0.1, 0.2, 0.6], 0).confidence_interval(0.95)
    assert got.low[0] == pytest.approx(want.low, abs=1e-4)
    assert got.high[0] == pytest.approx(want.high, abs=1e-4)


def test_interval_leans_towards_the_long_tail():
    x = rng().gamma(0.3, size=(1, 30, 1))
    got = intervals.bootstrap(x)
    assert got.high[0] - got.estimate[0] > 1.1 * (got.estimate[0] - got.low[0])


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 2), (3, 1, 2), (3, 9, 2)])
def test_constant_samples_give_a_point_and_no_nan(shape):
    got = intervals.bootstrap(np.full(shape, 0.25), np.full(shape, -0.125))
    for values in (got.low, got.high, got.estimate):
        np.testing.assert_array_equal(values, 0.125)
    assert np.isfinite(got.df).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(2, 12), st.floats(0.1, 10), st.integers(0, 99))
def test_interval_scales_and_shifts_with_the_data(seeds, n, scale, seed):
    x = rng(seed).random((seeds, n, 2))
    a, b = intervals.bootstrap(x), intervals.bootstrap(3 - scale * x)
    np.testing.assert_allclose(b.low, 3 - scale * a.high, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(b.high, 3 - scale * a.low, rtol=1e-6, atol=1e-9)


def test_detectable_effect_lies_beyond_the_threshold_by_the_power_asked_for():
    se, df = 0.01, 29.0
    found = intervals.detectable(0.10, se, df)
    x = found + se * rng().standard_normal(20_000)
    power = (x - stats.t.ppf(0.975, df) * se > 0.10).mean()
    assert power == pytest.approx(0.95, abs=0.015)
    assert intervals.detectable(0.10, 0.0, df) == 0.10


def test_interval_of_many_strata_is_that_of_their_sum():
    """Two classes on the same prompts are one stratum of differences; a constant stratum only shifts it."""
    x = rng().random((3, 10, 2))
    alone, shifted = intervals.bootstrap(x), intervals.bootstrap(x, np.full((3, 4, 2), 0.5))
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(shifted, name), getattr(alone, name) + 0.5)


def test_a_higher_level_gives_a_wider_interval():
    x = rng().random((3, 10, 2))
    wide, narrow = (intervals.bootstrap(x, level=level) for level in (0.99, 0.9))
    assert (wide.low < narrow.low).all()
    assert (wide.high > narrow.high).all()
