"""The mean over models against published numbers, a weighted mean, and the truth of a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from emergence.sweep.pooling import pooled, variance

# Vaccine against tuberculosis, 13 trials: cases and others, vaccinated and not (Colditz et al., JAMA 1994).
TRIALS = np.array([
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232),
    (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
])  # fmt: skip


def test_the_tuberculosis_trials_pool_to_what_is_published() -> None:
    a, b, c, d = TRIALS.T.astype(float)
    y = np.log(a / (a + b)) - np.log(c / (c + d))
    v = 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)
    found = pooled(y.tolist(), v.tolist())
    # metafor's documentation of rma(method="DL"): -0.7141 [-1.0644, -0.3638], tau² 0.3088
    assert [found.estimate, found.low, found.high] == pytest.approx([-0.7141, -1.0644, -0.3638], abs=6e-5)
    assert found.tau**2 == pytest.approx(0.3088, abs=6e-5)


def test_models_that_agree_give_the_weighted_mean() -> None:
    found = pooled([1.0, 1.1, 0.9], [0.5, 1.0, 2.0])
    assert found.tau == 0
    assert found.estimate == pytest.approx((1 / 0.5 + 1.1 / 1 + 0.9 / 2) / (1 / 0.5 + 1 + 1 / 2))
    assert found.high - found.estimate == pytest.approx(1.959964 * (1 / 0.5 + 1 + 1 / 2) ** -0.5)


def test_an_interval_gives_the_variance_that_made_it() -> None:
    assert variance(0.1 - 1.959964 * 0.03, 0.1 + 1.959964 * 0.03) == pytest.approx(0.03**2)


@pytest.mark.parametrize("wrong", [([], []), ([1.0], [0.0]), ([1.0, np.nan], [1.0, 1.0]), ([1.0], [np.inf])])
def test_what_has_no_variance_is_refused(wrong: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="cannot be pooled"):
        pooled(*wrong)


def test_the_interval_covers_the_mean_of_the_models_about_as_often_as_it_says() -> None:
    rng, hits, n = np.random.default_rng(0), 0, 600
    for _ in range(n):
        v = rng.uniform(0.005, 0.05, 12)
        found = pooled((0.3 + rng.normal(0, 0.2, 12) + rng.normal(0, np.sqrt(v))).tolist(), v.tolist())
        hits += found.low <= 0.3 <= found.high
    assert 0.90 <= hits / n <= 0.97, "it takes variances as known, so it is a little short"
