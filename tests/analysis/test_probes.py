"""Probes find a planted code, at its layer, and are not selective where streams hold the operands alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from synthetic import Plant, readings

from emergence.analysis import probes
from emergence.analysis.probes import ProbeEvidence


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def evidence(readings_, layers, cls) -> ProbeEvidence:
    return probes.evaluate(probes.fit_all(readings_, "symbolic", layers), cls)


def test_probe_on_the_span_of_the_training_set_is_the_full_regression():
    x, new = rng().standard_normal((20, 60)), rng(1).standard_normal((200, 60))
    y = rng(2).integers(3, size=20)
    in_span, new_in_span = probes.rotated(x, new)
    got = probes.fit(in_span, y, new_in_span)
    scaler = StandardScaler().fit(x)
    full = LogisticRegression(C=probes.STRENGTH, tol=1e-8, max_iter=5000).fit(scaler.transform(x), y)
    assert (got == full.predict(scaler.transform(new))).mean() > 0.98


def test_probe_finds_the_code_at_its_layer_and_generalises_to_unseen_operands_and_style():
    r = readings(Plant("base", "hidden", 6, 3.0))
    found = evidence(r, (5, 6, 7), "add")
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
    r.hidden[:] += codes[[p.label for p in r.prompts]]
    found = evidence(r, (5, 6), "multiply")
    assert found.control.min() > 0.6
    assert (found.selectivity.high < 0.2).all()
    assert found.p > 0.01


def test_probe_that_tells_the_operation_by_its_operands_is_not_selective():
    """Each operation has operands of its own, and streams hold nothing but them: accurate, and no finding."""
    r = readings(hidden=96)
    own = [replace(p, label=2 + 15 * (i // 120) + (i % 120) // 8) for i, p in enumerate(r.prompts)]
    codes = rng(1).standard_normal((100, r.hidden.shape[2]))
    streams = np.tile(codes[[p.label for p in own]], (r.n_layers, 1, 1)) + 0.01 * rng().random(r.hidden.shape)
    found = evidence(replace(r, prompts=tuple(own), hidden=streams), (5,), "add")
    assert found.accuracy[0] > 0.8
    assert found.selectivity.high[0] < 0.2


def test_control_labels_are_the_same_in_training_and_test_and_use_every_class():
    r = readings()
    labels = probes.control_labels(probes.control_types(r.prompts), 3, 0)
    by_operand = {}
    for p, label in zip(r.prompts, labels, strict=True):
        assert by_operand.setdefault(p.label, label) == label
    assert set(labels) == {0, 1, 2}


def test_rotation_keeps_every_distance_between_rows():
    x, new = rng().standard_normal((12, 40)), rng(1).standard_normal((5, 40))
    in_span, new_in_span = probes.rotated(x, new)
    assert in_span.shape == (12, 12)
    scaler = StandardScaler().fit(x)
    want = scaler.transform(new) @ scaler.transform(x).T  # all that a regression in the span of x can use
    np.testing.assert_allclose(new_in_span @ in_span.T, want, atol=1e-9)


def test_accuracy_and_confusion_are_scikit_learns_of_the_same_predictions():
    fitted = probes.fit_all(readings(Plant("base", "hidden", 6, 0.5)), "symbolic", (5, 6))
    for index, predicted in enumerate(fitted.predicted):
        np.testing.assert_array_equal(
            fitted.confusion(index), metrics.confusion_matrix(fitted.truth, predicted)
        )
    for k, cls in enumerate(fitted.readings.classes):
        want = [metrics.balanced_accuracy_score(fitted.truth == k, p == k) for p in fitted.predicted]
        np.testing.assert_allclose(probes.evaluate(fitted, cls).accuracy, want)


def test_selectivity_is_accuracy_minus_the_control_tasks_on_one_scale():
    fitted = probes.fit_all(readings(Plant("base", "hidden", 6, 0.5)), "symbolic", (5, 6))
    found = probes.evaluate(fitted, "add")
    chance, perfect = (replace(fitted, control_hits=np.full_like(fitted.control_hits, x)) for x in (1 / 3, 1))
    for changed, level in ((chance, 0.5), (perfect, 1.0)):
        again = probes.evaluate(changed, "add")
        np.testing.assert_allclose(again.control, level)
        np.testing.assert_allclose(again.selectivity.estimate, found.accuracy - level, atol=1e-12)


def test_the_probes_layer_is_chosen_without_the_evaluation_half():
    """Probes that happen to be right on every prompt they are judged on are chosen no more for that."""
    fitted = probes.fit_all(readings(Plant("base", "hidden", 6, 1.0)), "symbolic", (3, 6))
    wrong = (fitted.truth + 1) % 3
    lucky = replace(fitted, predicted=np.stack([fitted.truth, wrong]))
    found = probes.evaluate(lucky, "add")
    assert found.accuracy[0] == 1.0
    assert found.chosen == probes.evaluate(fitted, "add").chosen == 1


def test_unseen_operands_are_in_no_training_problem():
    r = readings(styles=("symbolic",))
    train, test = probes._unseen_operands(r.prompts, range(len(r.prompts)))
    numbers = [{n for i in index for n in r.prompts[i].numbers} for index in (train, test)]
    assert train
    assert test
    assert not numbers[0] & numbers[1]


def test_a_code_of_one_form_is_not_carried_over_to_another():
    """Every network passes on the glyph, and in another form the class is another token."""
    r = readings()
    codes = rng().standard_normal((2, 3, r.hidden.shape[2]))
    at = [(p.style == "worded", r.classes.index(p.cls)) for p in r.prompts]
    r.hidden[:] = rng(1).standard_normal(r.hidden.shape)
    r.hidden[5] += 3 * np.stack([codes[int(form), k] for form, k in at])
    fitted = probes.fit_all(r, "symbolic", (5,))
    assert fitted.own_form[0] > 0.95
    found = probes.evaluate(fitted, "add")
    assert found.selectivity.low[0] < 0.25
    assert probes.other_forms(r.prompts, "symbolic") == ("worded",)


def test_a_problem_that_is_asked_in_two_other_forms_counts_once():
    fitted = probes.fit_all(readings(Plant("base", "hidden", 6, 0.5)), "symbolic", (6,))
    twice = replace(
        fitted,
        truth=np.tile(fitted.truth, 2),
        predicted=np.tile(fitted.predicted, 2),
        problem=np.tile(fitted.problem, 2),
        form=fitted.form * 2,
        control_hits=np.tile(fitted.control_hits, 2),
    )
    one, two = (probes.evaluate(x, "add") for x in (fitted, twice))
    assert one.n == two.n == 30
    np.testing.assert_allclose(one.selectivity.low, two.selectivity.low)
    np.testing.assert_allclose(one.accuracy, two.accuracy)


def test_too_few_prompts_to_choose_a_layer_on_are_refused():
    with pytest.raises(ValueError, match="n_splits=3"):
        probes.fit_all(readings(per_class=4), "symbolic", (5,))
