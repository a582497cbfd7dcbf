"""Permutation tests and their adjustment against SciPy, scikit-learn, or a naive float64 reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from emergence.analysis import permutation

quick = settings(max_examples=30, deadline=None, derandomize=True)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Permutation tests ----------------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(0, 5), min_size=4, max_size=30), st.integers(0, 99))
def test_auroc_is_scikit_learns_with_ties(scores, seed):
    labels = rng(seed).random((3, len(scores))) < 0.5
    got = permutation.auroc(np.array(scores, dtype=float), labels)
    for value, row in zip(got, labels, strict=True):
        if row.all() or not row.any():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(metrics.roc_auc_score(row, scores), abs=1e-12)


def test_max_t_is_the_naive_count_over_the_largest_cell():
    observed, null = rng().random(4), rng(1).random((4, 99))
    got = permutation.max_t(observed, null)
    for value, o in zip(got, observed, strict=True):
        b = sum(max(column) >= o for column in null.T)
        assert value == (b + 1) / 100


def test_max_t_of_one_cell_is_its_own_permutation_p():
    assert permutation.max_t(np.array([2.0]), np.array([[1.0, 2.0, 3.0]]))[0] == 3 / 4


def test_separation_pays_for_every_layer_it_looks_at():
    scores, labels = rng(5).random((1, 1, 40)), np.arange(40) < 20
    scores[..., :20] += 0.25
    alone = permutation.separation(scores, labels)[1][0]
    noise = np.concatenate([scores, rng(6).random((1, 28, 40))], axis=1)
    among = permutation.separation(noise, labels)[1][0]
    assert alone < 0.05 < among


def test_separation_of_perfectly_told_classes_has_the_least_p():
    labels = np.arange(30) < 10
    area, p = permutation.separation(np.broadcast_to(labels * 1.0, (2, 3, 30)), labels)
    np.testing.assert_array_equal(area, 1.0)
    np.testing.assert_allclose(p, 1 / (permutation.PERMUTATIONS + 1))


def test_ties_everywhere_separate_nothing():
    area, p = permutation.separation(np.full((2, 3, 20), 0.4), np.arange(20) < 7)
    np.testing.assert_array_equal(area, 0.5)
    np.testing.assert_array_equal(p, 1.0)


def _naive_matching(mass: np.ndarray, own: np.ndarray, m: int) -> np.ndarray:
    cells, n = mass.shape[:2]
    orders = permutation.permutations(n, m)
    stat = lambda c, order: np.mean([mass[c, i, own[order[i]]] for i in range(n)])  # noqa: E731
    null = np.array([[stat(c, order) for order in orders] for c in range(cells)])
    seen = np.array([stat(c, np.arange(n)) for c in range(cells)])
    z = (null - null.mean(axis=1, keepdims=True)) / null.std(axis=1, keepdims=True)
    seen = (seen - null.mean(axis=1)) / null.std(axis=1)
    return np.array([(np.sum(z.max(axis=0) >= s - 1e-9) + 1) / (m + 1) for s in seen])


def test_matching_is_the_naive_permutation_of_answers():
    mass, own = rng().random((3, 12, 5)), rng(1).integers(5, size=12)
    mass[1, np.arange(12), own] += 0.4
    got, want = permutation.matching(mass, own, 199), _naive_matching(mass, own, 199)
    np.testing.assert_allclose(got, want, atol=0.006)
    assert got[1] <= 0.01 < got[0]


def test_matching_earns_nothing_from_a_bias_towards_some_answers():
    own = rng().integers(4, size=30)
    bias = np.broadcast_to(np.array([0.6, 0.2, 0.1, 0.05]), (2, 30, 4))
    assert (permutation.matching(bias, own) == 1.0).all()


def test_matching_is_unmoved_by_a_bias_on_top():
    mass, own = rng().random((2, 20, 4)), rng(1).integers(4, size=20)
    shifted = mass + np.array([0.5, 0.0, 0.3, 0.1])
    np.testing.assert_allclose(permutation.matching(mass, own), permutation.matching(shifted, own), atol=2e-3)


@quick
@given(st.lists(st.floats(0, 1), min_size=0, max_size=12))
def test_holm_is_the_naive_step_down(p):
    got = permutation.holm(p)
    order, running = np.argsort(p, kind="stable"), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        assert got[i] == pytest.approx(running)


def test_holm_of_three_p_values_by_hand():
    np.testing.assert_allclose(permutation.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


# Steps ----------------------------------------------------------------------------------------------------


def test_slopes_are_polyfits():
    steps, mass = (0, 25, 50, 150, 300), rng().random((5, 3, 4))
    want = np.polyfit(steps, mass.reshape(5, -1), 1)[0].reshape(3, 4)
    np.testing.assert_allclose(permutation.slopes(mass, steps), want, atol=1e-12)


def test_slope_of_a_line_is_its_own():
    steps = (0, 25, 50, 150)
    assert permutation.slopes(0.3 + 0.002 * np.array(steps), steps) == pytest.approx(0.002)


def test_trend_of_one_run_is_spearmans_exact_permutation_test():
    mass = np.array([[0.1, 0.3, 0.2, 0.4, 0.5]])
    rho, p = permutation.trend(mass)
    assert rho == pytest.approx(stats.spearmanr(range(5), mass[0]).statistic)
    orders = [stats.spearmanr(range(5), o).statistic for o in itertools.permutations(mass[0])]
    assert p == pytest.approx(np.mean(np.array(orders) >= rho - 1e-9), abs=0.01)


def test_trend_without_any_change_is_none():
    assert permutation.trend(np.full((3, 5), 0.2)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("present", "want"),
    [
        ("....", None),
        ("..##", (100, 200)),
        ("####", (None, 0)),
        (".#.#", (200, 300)),
        ("###.", None),
        (".###", (0, 100)),
    ],
)
def test_onset_is_the_first_checkpoint_from_which_it_stays(present, want):
    assert permutation.onset(lambda i: present[i] == "#", (0, 100, 200, 300)) == want


# Correctness, confusion -----------------------------------------------------------------------------------


HALF = np.arange(60) % 2 == 0


def test_predicts_is_the_mean_auroc_of_the_halves_of_seeds_where_both_outcomes_occur():
    scores, right = rng().random((4, 60)), rng(1).random((4, 60)) < 0.5
    right[3] = True
    got = permutation.predicts(scores, right, HALF)
    want = [metrics.roc_auc_score(right[s, h], scores[s, h]) for s in range(3) for h in (HALF, ~HALF)]
    assert got is not None
    assert got.usable == 3
    assert got.estimate == pytest.approx(np.mean(want))
    assert got.low <= got.estimate <= got.high


@pytest.mark.parametrize(("base", "shift"), [(0.5, 0.0), (0.5, 1.0), (0.8, 1.0), (0.5, 1.8)])
def test_the_interval_of_an_auroc_covers_it(base, shift):
    """Scores of right answers are shifted by one standard deviation: AUROC 0.76; by 1.8: 0.90."""
    r, missed, sims = rng(int(10 * base)), 0, 300
    truth = stats.norm.cdf(shift / np.sqrt(2))
    for _ in range(sims):
        right = r.random((1, 120)) < base
        got = permutation.area(r.standard_normal((1, 120)) + shift * right, right, np.arange(120) % 2 == 0)
        missed += got is not None and not got.low <= truth <= got.high
    assert stats.binomtest(missed, sims, 0.07, alternative="greater").pvalue > 1e-3


def test_perfect_scores_have_an_interval_all_the_same():
    right = np.arange(60)[None] % 4 < 2
    got = permutation.area(right.astype(float), right, HALF)
    assert got is not None
    assert (got.estimate, got.high) == (1.0, 1.0)
    assert 0.8 < got.low < 0.95


@pytest.mark.parametrize("value", [True, False])
def test_correctness_that_never_varies_predicts_nothing(value):
    assert permutation.predicts(rng().random((2, 60)), np.full((2, 60), value), HALF) is None


def test_tied_scores_predict_at_chance_without_nan():
    right = np.arange(120).reshape(2, 60) // 2 % 2 == 0
    got = permutation.predicts(np.full((2, 60), 0.3), right, HALF)
    assert got is not None
    assert (got.estimate, got.p) == (0.5, 1.0)
    assert np.isfinite([got.low, got.high]).all()


def test_labels_that_are_permuted_within_a_problem_stay_in_it():
    group = (4, 4, 1, 1, 1, 0, 4, 0)
    orders = permutation._within(group, 200)
    assert (np.array(group)[orders] == np.array(group)).all()
    assert len({tuple(order) for order in orders.tolist()}) > 50
    assert (np.sort(orders, axis=1) == np.arange(8)).all()


def test_confusion_and_balanced_accuracy_are_scikit_learns():
    truth, scores = rng().integers(3, size=40), rng(1).random((2, 40, 3))
    table, balanced = permutation.confusion(scores, truth)
    read, both = scores.argmax(axis=-1).ravel(), np.tile(truth, 2)
    np.testing.assert_array_equal(table, metrics.confusion_matrix(both, read))
    assert balanced == pytest.approx(metrics.balanced_accuracy_score(both, read))


def test_confusion_of_a_perfect_reading_is_diagonal():
    truth = np.array([0, 1, 2, 2])
    table, balanced = permutation.confusion(np.eye(3)[truth][None], truth)
    assert (table.tolist(), balanced) == ([[1, 0, 0], [0, 1, 0], [0, 0, 2]], 1.0)
