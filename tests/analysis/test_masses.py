"""Masses are what loops over the prompts find, and the comparison of answers is one over all their pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import OPERATIONS, Plant, study

from emergence.analysis import masses
from emergence.errors import BrokenExperiment

SMALL = {"n_layers": 8, "steps": (0, 50, 100), "styles": ("symbolic", "worded"), "hidden": 2}


@pytest.fixture(scope="module")
def runs():
    return study(Plant("sft", "answer", 5), Plant("sft", "words", 3), **SMALL, arms={"sft": 2}).runs


def of_class(run, cls, style="symbolic"):
    return [i for i, p in enumerate(run.prompts) if p.cls == cls and p.style == style]


@pytest.mark.parametrize(("family", "field"), [("words", "words"), ("glyphs", "glyphs")])
def test_masses_of_a_class_are_those_that_loops_find(runs, family, field):
    m = masses.from_readings(runs, "symbolic", family, "multiply")
    k, others = OPERATIONS.index("multiply"), [0, 1]
    elsewhere = [i for cls in ("add", "subtract") for i in of_class(runs[0], cls)]
    assert m.own.shape == (2, 3, 60, 8)
    for seed, run in enumerate(runs):
        mass = np.exp(getattr(run, field).astype(float))
        for j, i in enumerate(of_class(run, "multiply")):
            np.testing.assert_allclose(m.own[seed, :, j], mass[:, :, i, k])
            np.testing.assert_allclose(m.others[seed, :, j], mass[:, :, i, others].mean(axis=-1))
            np.testing.assert_allclose(m.largest[seed, :, j], mass[:, :, i, others].max(axis=-1))
        for j, i in enumerate(elsewhere):
            np.testing.assert_allclose(m.rest[seed, :, j], mass[:, :, i, k])
    assert m.half.tolist() == [runs[0].prompts[i].half for i in of_class(runs[0], "multiply")]
    assert m.n == 60


def test_random_words_have_a_cell_for_every_layer_of_every_set(runs):
    m = masses.from_readings(runs, "symbolic", "random words", "add")
    assert m.layer.tolist() == [layer for layer in range(8) for _ in range(6)]
    i = of_class(runs[0], "add")[7]
    want = np.exp(runs[1].random_words[2, :, i].astype(float))
    np.testing.assert_allclose(m.own[1, 2, 7], want.reshape(-1))
    np.testing.assert_allclose(m.others[1, 2, 7, :6], [(want[0].sum() - x) / 5 for x in want[0]])
    np.testing.assert_allclose(m.largest[1, 2, 7, :6], [max(np.delete(want[0], k)) for k in range(6)])


def test_the_largest_other_answer_is_that_of_a_loop(runs):
    r = runs[0]
    m = masses.from_readings([r], "symbolic", "answer", "add")
    for j, i in enumerate(of_class(r, "add")):
        mass = np.exp(r.answers[2, 4, i].astype(float))
        assert m.largest[0, 2, j, 4] == pytest.approx(np.delete(mass, r.own_answer[i]).max())


def test_partners_are_the_classs_own_tokens_on_other_classes_prompts(runs):
    m = masses.from_readings(runs, "symbolic", "words", "add")
    rest = [i for cls in ("subtract", "multiply") for i in of_class(runs[0], cls)]
    for cls, x in m.counterfactual.items():
        partners = [i for i in rest if runs[0].prompts[i].cls == cls]
        assert x.shape == (2, 3, 60, 8)
        got = np.sort(x[0, 2, :, 3])
        np.testing.assert_allclose(got, np.sort(np.exp(runs[0].words[2, 3, partners, 0].astype(float))))


def _over_all_pairs(mass: np.ndarray, own: np.ndarray) -> float:
    """Own minus other answers over all pairs of problems, on the scale of the pairs that differ."""
    pairs = [(p, q) for p in range(len(own)) for q in range(len(own)) if p != q]
    differences = [mass[p, own[p]] - mass[p, own[q]] for p, q in pairs]
    return float(np.sum(differences) / np.sum([own[p] != own[q] for p, q in pairs]))


def test_answer_mass_is_compared_with_the_other_answers_of_a_class(runs):
    r = runs[0]
    m = masses.from_readings([r], "symbolic", "answer", "multiply")
    here = of_class(r, "multiply")
    mass = np.exp(r.answers[2, :, here].astype(float))
    for layer in (2, 5):
        got = (m.own - m.others)[0, 2, :, layer].mean()
        assert got == pytest.approx(_over_all_pairs(mass[:, layer], r.own_answer[here]), abs=1e-6)
        assert got == pytest.approx(m.own[0, 2, :, layer].mean(), abs=0.02 if layer == 5 else 2e-3)


def test_a_bias_towards_some_answers_stands_out_from_no_others():
    biased = Plant("sft", "answer", 5, 0.9, selective=False)
    m = masses.from_readings(
        study(biased, **SMALL, arms={"sft": 1}, prompt_sd=0.02).runs, "symbolic", "answer", "add"
    )
    assert m.own[0, 2, :, 5].mean() > 0.05
    assert abs((m.own - m.others)[0, 2, :, 5].mean()) < 0.01


def test_prompts_that_hold_their_own_answer_are_left_out_and_counted(runs):
    copied = np.arange(len(runs[0].prompts)) % 3 == 0
    marked = [replace(r, copied=copied) for r in runs]
    left = [i for i in of_class(runs[0], "add") if not copied[i]]
    m = masses.from_readings(marked, "symbolic", "answer", "add")
    assert (m.own.shape[2], m.copied) == (len(left), 60 - len(left))
    np.testing.assert_array_equal(m.own_answer, runs[0].own_answer[left])
    np.testing.assert_array_equal(
        masses.correct(marked, "symbolic", "add", 2), [r.correct[2, left] for r in runs]
    )
    assert masses.from_readings(marked, "symbolic", "words", "add").own.shape[2] == 60


def test_prompts_that_are_only_shown_are_in_no_mass(runs):
    shown = [replace(p, half=-1) if i < 10 else p for i, p in enumerate(runs[0].prompts)]
    m = masses.from_readings([replace(runs[0], prompts=tuple(shown))], "symbolic", "words", "add")
    assert m.own.shape[2] == 55


def test_class_masses_are_of_all_prompts_that_are_judged(runs):
    scores, truth = masses.class_masses(runs, "worded", 1, 4)
    judged = [i for i, p in enumerate(runs[0].prompts) if p.style == "worded"]
    np.testing.assert_array_equal(scores, [r.words[1, 4, judged] for r in runs])
    assert [OPERATIONS[k] for k in truth] == [runs[0].prompts[i].cls for i in judged]


@pytest.mark.parametrize("family", ["words", "answer", "random words"])
def test_some_cells_of_one_seed_are_that_part_of_every_array(runs, family):
    m = masses.from_readings(runs, "symbolic", family, "add")
    part = m.of_seed(1).within([2, 5])
    assert (part.n_seeds, part.layer.tolist()) == (1, m.layer[[2, 5]].tolist())
    np.testing.assert_array_equal(part.own, m.own[1:2, ..., [2, 5]])
    np.testing.assert_array_equal(part.others, m.others[1:2, ..., [2, 5]])
    np.testing.assert_array_equal(part.largest, m.largest[1:2, ..., [2, 5]])
    for cls, x in m.counterfactual.items():
        np.testing.assert_array_equal(part.counterfactual[cls], x[1:2, ..., [2, 5]])
    if family == "answer":
        np.testing.assert_array_equal(part.answers, m.answers[1:2, :, [2, 5]])
    else:
        np.testing.assert_array_equal(part.rest, m.rest[1:2, ..., [2, 5]])


@pytest.mark.parametrize("family", ["words", "answer"])
def test_over_steps_every_later_checkpoint_has_cells_of_its_own(runs, family):
    m = masses.from_readings(runs, "symbolic", family, "add")
    folded = m.over_steps()
    assert folded.steps == (0, 100)
    for cell, (layer, step) in enumerate(zip(folded.layer, folded.when, strict=True)):
        t = m.steps.index(step)
        np.testing.assert_array_equal(folded.own[:, 1, :, cell], m.own[:, t, :, layer])
        np.testing.assert_array_equal(folded.own[:, 0, :, cell], m.own[:, 0, :, layer])
        if family == "answer":
            np.testing.assert_array_equal(folded.answers[:, 1, cell], m.answers[:, t, layer])
    assert len(folded.layer) == 2 * 8


@pytest.mark.parametrize("value", [np.nan, 0.7])
def test_readings_that_are_no_probabilities_are_an_error(value):
    runs = study(**SMALL, arms={"sft": 3}).runs
    runs[2].answers[1, 3, 6, 0] = value
    with pytest.raises(BrokenExperiment, match="sft seed 2: answers are no log-probabilities"):
        masses.from_readings(runs, "symbolic", "answer", "add")
