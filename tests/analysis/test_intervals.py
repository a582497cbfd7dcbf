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


# That a mean is small --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 60, 200])
def test_prompts_that_all_hold_nothing_have_the_p_of_a_binomial(n):
    """If one prompt in twenty held everything, all of n would miss it with probability 0.95**n."""
    assert intervals.p_at_least(np.zeros((n, 1)), 0.05)[0] == pytest.approx(0.95**n, rel=0.05)
    assert intervals.upper(np.zeros(n), 0.05) == pytest.approx(1 - 0.05 ** (1 / n), rel=0.02)


@pytest.mark.parametrize(("hits", "mean"), [(1, 0.08), (6, 0.16), (20, 0.4), (40, 0.6)])
def test_of_hits_and_misses_the_bound_is_clopper_and_pearsons(hits, mean):
    x = (np.arange(60) < hits).astype(float)
    assert intervals.p_at_least(x[:, None], mean)[0] == pytest.approx(
        stats.binom.cdf(hits, 60, mean), rel=0.05
    )
    assert intervals.upper(x, 0.05) == pytest.approx(stats.beta.ppf(0.95, hits + 1, 60 - hits), abs=2e-3)
    assert intervals.lower(x, 0.05) == pytest.approx(stats.beta.ppf(0.05, hits, 61 - hits), abs=2e-3)


def test_p_of_a_mean_is_that_of_its_definition_by_draws():
    """The saddlepoint against 200,000 draws of the exponential weights."""
    x, weights = rng().beta(0.3, 3, (40, 5)), rng(1).exponential(size=(200_000, 41))
    for mean, most in ((0.12, 1.0), (0.05, 1.0), (0.08, 2.0)):
        drawn = (weights[:, :40] @ (x - mean) + weights[:, 40:] * (most - mean) >= 0).mean(axis=0)
        np.testing.assert_allclose(intervals.p_at_least(x, mean, most), drawn, atol=5e-3, rtol=0.05)


@pytest.mark.parametrize("n", [30, 60])
@pytest.mark.parametrize("kind", ["all or nothing", "heavy tail", "even"])
def test_the_bound_of_few_prompts_covers_the_mean(n, kind):
    """Where Student's t misses it in a fifth of the samples: masses near 0, and a few near 1."""
    r, sims = rng(n), 2000
    x = {
        "all or nothing": (r.random((n, sims)) < 0.05).astype(float),
        "heavy tail": r.beta(0.05, 0.95, (n, sims)),
        "even": r.random((n, sims)) / 10,
    }[kind]
    wrong = int((intervals.p_at_least(x, 0.05) < 0.05).sum())
    assert stats.binomtest(wrong, sims, 0.05, alternative="greater").pvalue > 1e-3
    if kind == "heavy tail":
        t = stats.ttest_1samp(x, 0.05, axis=0, alternative="less").pvalue
        assert (t < 0.05).mean() > 0.1, "the control: this is what the bound is for"


def test_values_that_are_all_alike_have_a_p():
    for value, want in ((0.05, 1.0), (0.3, 1.0), (1.0, 1.0)):
        assert intervals.p_at_least(np.full((40, 1), value), 0.05)[0] == want
    assert intervals.p_at_least(np.full((400, 1), 0.01), 0.05)[0] < 1e-3


def test_what_no_seed_of_a_few_has_excludes_only_that_most_have_it():
    assert [round(intervals.excluded_share(k), 2) for k in (1, 3, 5, 59)] == [0.95, 0.63, 0.45, 0.05]


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


def test_the_lower_end_is_one_that_a_few_prompts_confidently_wrong_cannot_break():
    """Sixty margins of 13 %: the sample's own spread says [12.9, 13.1], and of 3 in 100 it could miss all."""
    x = 0.13 + 0.004 * np.random.default_rng(0).standard_normal((1, 60, 2))
    plain, got = intervals.bootstrap(x), intervals.judge(x, -1.0)
    assert plain.low[0] > 0.12
    # Of n equal values m the bound b has ((1 + b) / (1 + m)) ** n = 5 %.
    assert got.low[0] == pytest.approx(1.13 * 0.05 ** (1 / 60) - 1, abs=2e-3)
    assert got.low[1] == plain.low[1]
    assert not got.exceed(0.10).any()
    assert got.exceed(0.07).all()
    assert intervals.judge(x, 0.0).exceed(0.10).all(), "nothing can be far below, and the mean is sure"


@pytest.mark.parametrize("n", [30, 60])
def test_the_interval_of_a_share_near_0_or_1_covers_it_where_the_sample_s_own_spread_does_not(n):
    """One prompt in fifty holds everything: of 30, most samples hold none, and their spread is nothing."""
    rng, missed, plain = np.random.default_rng(n), [0, 0], 0
    for _ in range(200):
        x = (rng.random((1, n, 1)) < 0.02).astype(float)
        for k, share in enumerate((x, 1 - x)):
            got, truth = intervals.judge(share, 0.0), (0.02, 0.98)[k]
            missed[k] += not got.low[0] <= truth <= got.high[0]
        plain += intervals.bootstrap(x).high[0] < 0.02
    assert max(missed) <= 14, "at most 7 in 100"
    assert plain > 40, "which the plain interval misses more than one time in five"
