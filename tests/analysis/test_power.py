"""What a verdict promises is what a study of that size then finds: resampled noise against fresh noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from emergence.analysis import intervals, power


def readings(mean, n, seeds, studies, seed_sd=0.0, rng=0):
    """Masses near 0 and 1 with this mean, `[study seed prompt]`; seeds read the same prompts."""
    r = np.random.default_rng(rng)
    level = np.clip(mean + seed_sd * r.standard_normal((studies, seeds, 1)), 0.001, 0.999)
    return (r.random((studies, 1, n)) < level) * r.uniform(0.9, 1.0, (studies, seeds, n))


def test_resampled_studies_have_the_mean_and_the_spread_of_what_was_read():
    x = readings(0.3, 60, 3, 1)[0][..., None]
    drawn = power.resampled(x, 5, 120, 2000)
    assert drawn.shape == (1, 5, 120, 2000)
    assert drawn.mean() == pytest.approx(x.mean(), abs=0.01)
    assert drawn[0].mean(axis=(0, 1)).std() == pytest.approx(x.mean(axis=0).std() / np.sqrt(120), rel=0.15)


def test_resampled_seeds_differ_as_much_as_seeds_do():
    """Draws from three seeds differ less than seeds: without the widening the ratio would be 0.82."""
    rng, ratio = np.random.default_rng(0), []
    for _ in range(40):
        x = np.repeat(0.3 + 0.1 * rng.standard_normal((3, 1)), 60, axis=1)[..., None]
        ratio.append(power.resampled(x, 200, 1, 200)[0].std(axis=0).mean() / x[:, 0, 0].std(ddof=1))
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("mean", [0.2, 0.3])
def test_the_power_that_is_printed_is_that_of_fresh_studies(mean):
    """Averaged over pilots, for a pilot of 60 prompts knows the noise only roughly."""
    fresh = np.moveaxis(readings(mean, 80, 1, 2000, rng=1), 0, 2)
    true = (
        (intervals.bootstrap(fresh).low > 0.1) & intervals.surely_above(fresh.mean(axis=0), 0.1, 0.0)
    ).mean()
    pilots = [readings(mean, 400, 1, 1, rng=k)[0][..., None] for k in range(2, 14)]
    told = np.mean([power.power_there(x, [0.1], [0.0], 1, 80) for x in pilots])
    assert told == pytest.approx(true, abs=0.05)


def test_an_effect_is_planted_as_hits_and_has_the_mean_that_was_asked_for():
    x = readings(0.02, 60, 3, 1)[0][..., None]
    got = power.planted(x, 0.2)
    assert got.mean() == pytest.approx(0.2, abs=0.02)
    changed = (got != x).any(axis=(0, 2))
    assert (got[:, changed] == 1).all()


def test_nothing_at_all_needs_the_prompts_of_the_closed_form():
    x = np.zeros((1, 60))
    alpha = 0.05 / 60
    wanted = np.log(alpha) / np.log(0.95)
    found = power.needs(lambda s, n: power.power_gone([(x, alpha, 1.0)], 0.05, s, n), (1,))
    assert found.prompts == next(n for n in power.PROMPTS if n >= wanted)
    assert str(found) == f"about {found.prompts} prompts"


def test_more_seeds_are_asked_for_where_seeds_differ():
    x = np.repeat(np.array([0.12, 0.35, 0.6])[:, None], 60, axis=1)[..., None]
    assert power.power_there(x, [0.1], [0.0], 3, 640) < 0.95
    found = power.needs(lambda s, n: power.power_there(x, [0.1], [0.0], s, n), (3, 5, 8))
    assert found is None or found.seeds > 3


def test_what_no_number_of_prompts_decides_has_no_needs():
    x = readings(0.08, 60, 1, 1)[0][..., None]
    assert power.needs(lambda s, n: power.power_there(x, [0.1], [0.0], s, n), (1,)) is None
    spread = power.Spread(0.01, 0.0, 60, 1)
    assert power.power_by_error(spread, [(0.0, 0.975)], 1, 640) == pytest.approx(0.025, abs=1e-3)


def test_an_error_that_must_be_halved_needs_four_times_the_prompts():
    spread, reach = power.Spread(0.01, 0.0, 6000, 1), 1.96 + 1.645
    for distance, n in ((reach * 0.1, 6000), (reach * 0.05, 24000)):
        assert power.power_by_error(spread, [(distance, 0.975)], 1, n) == pytest.approx(0.95, abs=2e-3)


def test_the_power_of_a_statistic_with_few_seeds_is_that_of_student_s_t():
    """Seeds that differ, prompts that do not matter: a t test of three values, drawn 20,000 times."""
    x = 0.1 * np.random.default_rng(4).standard_normal((3, 20_000)) + 0.3
    t = x.mean(axis=0) / (x.std(axis=0, ddof=1) / np.sqrt(3))
    told = power.power_by_error(power.Spread(1e-9, 0.01 / 3, 60, 3), [(0.3, 0.975)], 3, 60)
    assert told == pytest.approx((t > stats.t.ppf(0.975, 2)).mean(), abs=0.01)
