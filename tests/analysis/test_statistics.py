"""Every statistic against an independent one: SciPy, scikit-learn, or a naive float64 reference."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from synthetic import Plant, readings

from emergence.analysis import permutation as statistics
from emergence.analysis import probes

quick = settings(max_examples=30, deadline=None, derandomize=True)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Intervals ------------------------------------------------------------------------------------------------


def test_interval_moments_are_those_of_hierarchical_draws():
    """The closed form against brute force: seeds drawn first, then prompts, the same for every seed."""
    x, draws = rng(1).gamma(0.5, size=(3, 12, 1)), 40_000
    seeds, n = x.shape[:2]
    pick_s = rng(2).integers(seeds, size=(draws, seeds))
    pick_p = rng(3).integers(n, size=(draws, n))
    drawn = np.array([x[s][:, p, 0].mean() for s, p in zip(pick_s, pick_p, strict=True)])
    m = statistics.moments(x)
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
    got = statistics.bootstrap(x)
    want = stats.ttest_1samp(x[0], 0).confidence_interval(0.95)
    np.testing.assert_allclose(got.low, want.low, rtol=1e-9)
    np.testing.assert_allclose(got.high, want.high, rtol=1e-9)


def test_interval_of_a_difference_of_classes_has_welch_degrees_of_freedom():
    a, b = rng().standard_normal((1, 14, 3)), 3 * rng(1).standard_normal((1, 40, 3))
    welch = stats.ttest_ind(a[0], b[0], equal_var=False)
    got = statistics.bootstrap(a, -b)
    np.testing.assert_allclose(got.df, welch.df, rtol=1e-9)
    np.testing.assert_allclose(got.estimate / got.se, welch.statistic, rtol=1e-9)


def test_interval_with_seeds_that_differ_is_as_wide_as_student_t_over_the_seeds():
    x = np.array([0.1, 0.2, 0.6])[:, None, None] + 1e-6 * rng().standard_normal((3, 50, 1))
    got = statistics.bootstrap(x)
    want = stats.ttest_1samp([0.1, 0.2, 0.6], 0).confidence_interval(0.95)
    assert got.low[0] == pytest.approx(want.low, abs=1e-4)
    assert got.high[0] == pytest.approx(want.high, abs=1e-4)


def test_interval_leans_towards_the_long_tail():
    x = rng().gamma(0.3, size=(1, 30, 1))
    got = statistics.bootstrap(x)
    assert got.high[0] - got.estimate[0] > 1.1 * (got.estimate[0] - got.low[0])


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 9, 2), (3, 1, 2), (3, 9, 2)])
def test_constant_samples_give_a_point_and_no_nan(shape):
    got = statistics.bootstrap(np.full(shape, 0.25), np.full(shape, -0.125))
    for values in (got.low, got.high, got.estimate):
        np.testing.assert_array_equal(values, 0.125)
    assert np.isfinite(got.df).all()


@quick
@given(st.integers(1, 4), st.integers(2, 12), st.floats(0.1, 10), st.integers(0, 99))
def test_interval_scales_and_shifts_with_the_data(seeds, n, scale, seed):
    x = rng(seed).random((seeds, n, 2))
    a, b = statistics.bootstrap(x), statistics.bootstrap(3 - scale * x)
    np.testing.assert_allclose(b.low, 3 - scale * a.high, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(b.high, 3 - scale * a.low, rtol=1e-6, atol=1e-9)


def test_detectable_effect_lies_beyond_the_threshold_by_the_power_asked_for():
    se, df = 0.01, 29.0
    found = statistics.detectable(0.10, se, df)
    x = found + se * rng().standard_normal(20_000)
    power = (x - stats.t.ppf(0.975, df) * se > 0.10).mean()
    assert power == pytest.approx(0.95, abs=0.015)
    assert statistics.detectable(0.10, 0.0, df) == 0.10


# Permutation tests ----------------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(0, 5), min_size=4, max_size=30), st.integers(0, 99))
def test_auroc_is_scikit_learns_with_ties(scores, seed):
    labels = rng(seed).random((3, len(scores))) < 0.5
    got = statistics.auroc(np.array(scores, dtype=float), labels)
    for value, row in zip(got, labels, strict=True):
        if row.all() or not row.any():
            assert np.isnan(value)
        else:
            assert value == pytest.approx(metrics.roc_auc_score(row, scores), abs=1e-12)


def test_max_t_is_the_naive_count_over_the_largest_cell():
    observed, null = rng().random(4), rng(1).random((4, 99))
    got = statistics.max_t(observed, null)
    for value, o in zip(got, observed, strict=True):
        b = sum(max(column) >= o for column in null.T)
        assert value == (b + 1) / 100


def test_separation_pays_for_every_layer_it_looks_at():
    scores, labels = rng(5).random((1, 1, 40)), np.arange(40) < 20
    scores[..., :20] += 0.25
    alone = statistics.separation(scores, labels)[1][0]
    noise = np.concatenate([scores, rng(6).random((1, 28, 40))], axis=1)
    among = statistics.separation(noise, labels)[1][0]
    assert alone < 0.05 < among


def test_separation_of_perfectly_told_classes_has_the_least_p():
    labels = np.arange(30) < 10
    area, p = statistics.separation(np.broadcast_to(labels * 1.0, (2, 3, 30)), labels)
    np.testing.assert_array_equal(area, 1.0)
    np.testing.assert_allclose(p, 1 / (statistics.PERMUTATIONS + 1))


def test_ties_everywhere_separate_nothing():
    area, p = statistics.separation(np.full((2, 3, 20), 0.4), np.arange(20) < 7)
    np.testing.assert_array_equal(area, 0.5)
    np.testing.assert_array_equal(p, 1.0)


def _naive_matching(mass: np.ndarray, own: np.ndarray, m: int) -> np.ndarray:
    cells, n = mass.shape[:2]
    orders = statistics.permutations(n, m)
    stat = lambda c, order: np.mean([mass[c, i, own[order[i]]] for i in range(n)])  # noqa: E731
    null = np.array([[stat(c, order) for order in orders] for c in range(cells)])
    seen = np.array([stat(c, np.arange(n)) for c in range(cells)])
    z = (null - null.mean(axis=1, keepdims=True)) / null.std(axis=1, keepdims=True)
    seen = (seen - null.mean(axis=1)) / null.std(axis=1)
    return np.array([(np.sum(z.max(axis=0) >= s - 1e-9) + 1) / (m + 1) for s in seen])


def test_matching_is_the_naive_permutation_of_answers():
    mass, own = rng().random((3, 12, 5)), rng(1).integers(5, size=12)
    mass[1, np.arange(12), own] += 0.4
    got, want = statistics.matching(mass, own, 199), _naive_matching(mass, own, 199)
    np.testing.assert_allclose(got, want, atol=0.006)
    assert got[1] <= 0.01 < got[0]


def test_matching_earns_nothing_from_a_bias_towards_some_answers():
    own = rng().integers(4, size=30)
    bias = np.broadcast_to(np.array([0.6, 0.2, 0.1, 0.05]), (2, 30, 4))
    assert (statistics.matching(bias, own) == 1.0).all()


def test_matching_is_unmoved_by_a_bias_on_top():
    mass, own = rng().random((2, 20, 4)), rng(1).integers(4, size=20)
    shifted = mass + np.array([0.5, 0.0, 0.3, 0.1])
    np.testing.assert_allclose(statistics.matching(mass, own), statistics.matching(shifted, own), atol=2e-3)


@quick
@given(st.lists(st.floats(0, 1), min_size=0, max_size=12))
def test_holm_is_the_naive_step_down(p):
    got = statistics.holm(p)
    order, running = np.argsort(p, kind="stable"), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        assert got[i] == pytest.approx(running)


# Steps ----------------------------------------------------------------------------------------------------


def test_slopes_are_polyfits():
    steps, mass = (0, 25, 50, 150, 300), rng().random((5, 3, 4))
    want = np.polyfit(steps, mass.reshape(5, -1), 1)[0].reshape(3, 4)
    np.testing.assert_allclose(statistics.slopes(mass, steps), want, atol=1e-12)


def test_trend_of_one_run_is_spearmans_exact_permutation_test():
    mass = np.array([[0.1, 0.3, 0.2, 0.4, 0.5]])
    rho, p = statistics.trend(mass)
    assert rho == pytest.approx(stats.spearmanr(range(5), mass[0]).statistic)
    orders = [stats.spearmanr(range(5), o).statistic for o in itertools.permutations(mass[0])]
    assert p == pytest.approx(np.mean(np.array(orders) >= rho - 1e-9), abs=0.01)


def test_trend_without_any_change_is_none():
    assert statistics.trend(np.full((3, 5), 0.2)) == (0.0, 1.0)


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
    assert statistics.onset([c == "#" for c in present], (0, 100, 200, 300)) == want


# Correctness, confusion -----------------------------------------------------------------------------------


def test_predicts_is_the_mean_auroc_of_the_seeds_where_both_outcomes_occur():
    scores, right = rng().random((4, 25)), rng(1).random((4, 25)) < 0.5
    right[3] = True
    got = statistics.predicts(scores, right)
    want = np.mean([metrics.roc_auc_score(right[s], scores[s]) for s in range(3)])
    assert got is not None
    assert got.usable == 3
    assert got.estimate == pytest.approx(want)
    assert got.low <= got.estimate <= got.high


@pytest.mark.parametrize("value", [True, False])
def test_correctness_that_never_varies_predicts_nothing(value):
    assert statistics.predicts(rng().random((2, 9)), np.full((2, 9), value)) is None


def test_tied_scores_predict_at_chance_without_nan():
    got = statistics.predicts(np.full((2, 12), 0.3), np.arange(24).reshape(2, 12) % 2 == 0)
    assert got is not None
    assert (got.estimate, got.p) == (0.5, 1.0)
    assert np.isfinite([got.low, got.high]).all()


def test_confusion_and_balanced_accuracy_are_scikit_learns():
    truth, scores = rng().integers(3, size=40), rng(1).random((2, 40, 3))
    table, balanced = statistics.confusion(scores, truth)
    read, both = scores.argmax(axis=-1).ravel(), np.tile(truth, 2)
    np.testing.assert_array_equal(table, metrics.confusion_matrix(both, read))
    assert balanced == pytest.approx(metrics.balanced_accuracy_score(both, read))


# Probes ---------------------------------------------------------------------------------------------------


def test_probe_on_the_span_of_the_training_set_is_the_full_regression():
    x, new = rng().standard_normal((20, 60)), rng(1).standard_normal((200, 60))
    y = rng(2).integers(3, size=20)
    got = probes.fit(*_in_order(*probes.rotated(x, new), y))
    scaler = StandardScaler().fit(x)
    full = LogisticRegression(C=probes.STRENGTH, tol=1e-8, max_iter=5000).fit(scaler.transform(x), y)
    assert (got == full.predict(scaler.transform(new))).mean() > 0.98


def _in_order(a, b, y):
    return a, y, b


def test_probe_finds_the_code_at_its_layer_and_generalises_to_unseen_operands_and_style():
    r = readings(Plant("base", "hidden", 6, 3.0))
    found = probes.Bench(r, "symbolic", (5, 6, 7)).probe("add")
    assert found.layers[found.chosen] == 6
    assert found.selectivity.low[1] > 0.3
    assert (found.selectivity.high[[0, 2]] < 0.2).all()
    assert found.p < 0.01
    assert found.unseen["operands"] > 0.9
    assert found.unseen["worded"] > 0.9


def test_probe_that_reads_the_operand_is_not_selective():
    """Streams that hold the operand let a probe learn the control task by heart: that is no finding."""
    r = readings()
    r.hidden[:] = 0.01 * rng().standard_normal(r.hidden.shape)
    codes = rng(1).standard_normal((100, r.hidden.shape[2]))
    r.hidden[:] += codes[[p.a for p in r.prompts]]
    found = probes.Bench(r, "symbolic", (5, 6)).probe("multiply")
    assert found.control.min() > 0.6
    assert (found.selectivity.high < 0.2).all()
    assert found.p > 0.01


def test_probe_that_tells_the_operation_by_its_operands_is_not_selective():
    """Each operation has operands of its own, and streams hold nothing but them: accurate, and no finding."""
    r = readings(styles=("symbolic",), hidden=96)
    own = [replace(p, a=2 + 15 * (i // 60) + (i % 60) // 4) for i, p in enumerate(r.prompts)]
    codes = rng(1).standard_normal((100, r.hidden.shape[2]))
    streams = np.tile(codes[[p.a for p in own]], (r.n_layers, 1, 1)) + 0.01 * rng().random(r.hidden.shape)
    found = probes.Bench(replace(r, prompts=tuple(own), hidden=streams), "symbolic", (5,)).probe("add")
    assert found.accuracy[0] > 0.8
    assert found.selectivity.high[0] < 0.2


def test_control_labels_are_the_same_in_training_and_test_and_use_every_class():
    r = readings()
    labels = probes.control_labels(probes.control_types(r.prompts), 3, 0)
    by_operand = {}
    for p, label in zip(r.prompts, labels, strict=True):
        assert by_operand.setdefault(p.a, label) == label
    assert set(labels) == {0, 1, 2}
