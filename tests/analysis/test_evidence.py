"""Each half is judged where the other half chose; parts are plain means; absence holds in every cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Plant, study

from emergence.analysis import evidence, intervals, masses, permutation

SMALL = {"n_layers": 8, "steps": (0, 50, 100), "styles": ("symbolic",), "hidden": 2}


def masses_of(family, *plants, **settings):
    runs = study(*plants, **(SMALL | {"arms": {"sft": 3}} | settings)).runs
    return masses.from_readings(runs, "symbolic", family, "add")


def test_parts_are_own_mass_and_what_it_has_over_the_largest_other_and_over_other_prompts():
    m = masses_of("words", Plant("base", "words", 4, 0.2), Plant("sft", "words", 5))
    found = {q.name: q for q in evidence.parts(m, 2)}
    assert list(found) == ["strength", "margin", "against subtract", "against multiply"]
    np.testing.assert_array_equal(found["strength"].now, m.own[:, 2])
    np.testing.assert_array_equal(found["margin"].before, m.own[:, 0] - m.largest[:, 0])
    for cls in ("subtract", "multiply"):
        q, own = found[f"against {cls}"], m.own[:, 2][:, m.paired[cls]]
        np.testing.assert_array_equal(q.now, own - m.counterfactual[cls][:, 2])
    assert set(evidence.measure(m, 2, emerges=True).judged) == {*found, "agrees", "gain"}


def test_answers_are_compared_with_other_answers():
    m = masses_of("answer", Plant("sft", "answer", 5))
    assert [q.name for q in evidence.parts(m, 2)] == ["strength", "margin", "others"]
    assert set(evidence.measure(m, 2, emerges=False).judged) == {"strength", "margin", "others"}


def two_places(family):
    """Strong at layer 3 on the first half, at layer 5 on the second."""
    m = masses_of(family, Plant("sft", family, 3), Plant("sft", family, 5))
    own, first = m.own.copy(), m.deals[0]
    own[:, :, first, 5] *= 0.2
    own[:, :, ~first, 3] *= 0.2
    return replace(m, own=own)


@pytest.mark.parametrize("family", ["words", "answer"])
def test_each_half_is_judged_at_the_cell_that_the_other_half_chose(family):
    m = two_places(family)
    e = evidence.measure(m, 2, emerges=False)
    assert e.chosen[0].tolist() == [3, 5]
    own = m.own[:, 2].mean(axis=0)
    want = np.where(m.deals[0], own[:, 5], own[:, 3]).mean()
    assert e.judged["strength"].estimate[0] == pytest.approx(want)
    itself = evidence.measure(m, 2, emerges=False, apart=False)
    assert itself.judged["strength"].estimate[0] > 3 * want, "a half judged where it chose looks better"


def test_the_first_deal_is_the_recorded_one_and_the_others_are_halves_too():
    m = masses_of("words")
    assert m.deals.shape == (40, 60)
    np.testing.assert_array_equal(m.deals[0], m.half == 0)
    assert set(m.deals.sum(axis=1)) == {30}
    assert len({tuple(d) for d in m.deals.tolist()}) == 40


def test_the_chosen_cell_has_the_largest_smallest_part():
    """A bias at layer 3 is stronger than the classifier at layer 5, and tells nothing."""
    m = masses_of("words", Plant("sft", "words", 3, 0.99, selective=False), Plant("sft", "words", 5, 0.2))
    e = evidence.measure(m, 2, emerges=False)
    assert e.strongest == 3
    assert (e.chosen == 5).all()


def test_a_classifier_holds_where_every_part_clears_its_bound():
    e = evidence.measure(masses_of("words", Plant("sft", "words", 5)), 2, emerges=True)
    assert e.holds(0.1).all()
    for name in e.judged:
        low = replace(e.judged[name], low=np.full(40, 0.05))
        assert not replace(e, judged=e.judged | {name: low}).holds(0.1).any(), name


def test_mass_that_is_larger_on_another_word_holds_no_classifier():
    """0.30 on the own word, 0.42 on another: strong, far above the mean of the others, and always wrong."""
    m = masses_of("words", Plant("sft", "words", 5, 0.3))
    largest = m.largest.copy()
    largest[:, 2, :, 5] = 0.42
    e = evidence.measure(replace(m, largest=largest), 2, emerges=False)
    assert e.parts[0].now[..., 5].mean() > 0.25
    assert not e.holds(0.1).any()


def test_the_part_that_decides_is_the_one_least_above_its_bound():
    m = masses_of("words", Plant("sft", "words", 5))
    lower = m.counterfactual | {"multiply": m.counterfactual["multiply"] + 0.25}
    e = evidence.measure(replace(m, counterfactual=lower), 2, emerges=True)
    assert e.weakest(0.1) == "against multiply"


def test_gain_is_the_weakest_part_now_minus_the_weakest_at_step_0():
    """The base model has half of it; a bias of the base model does not count against it."""
    m = masses_of("words", Plant("base", "words", 5, 0.15), Plant("sft", "words", 5, 0.3), prompt_sd=0.01)
    e = evidence.measure(m, 2, emerges=True)
    assert e.judged["gain"].estimate[0] == pytest.approx(0.3, abs=0.02)
    bias = masses_of("words", Plant("base", "words", 5, 0.9, selective=False), Plant("sft", "words", 5, 0.4))
    assert evidence.measure(bias, 2, emerges=True).judged["gain"].estimate[0] > 0.25


# Absence --------------------------------------------------------------------------------------------------


def test_absence_is_least_sure_where_most_is_left():
    m = masses_of("words", Plant("sft", "words", 5, 0.03), per_class=160, prompt_sd=0.01)
    absence = evidence.measure(m, 2, emerges=False).absence(0.05)
    assert (absence.cell, absence.name) == (5, "strength")
    values = m.own[absence.seed, 2, :, 5]
    assert absence.estimate == pytest.approx(values.mean())
    assert absence.p.max() == pytest.approx(intervals.p_at_least(values[:, None], 0.05)[0] / 0.8)
    assert (absence.high < 0.05) == (absence.p.max() < 0.05)


def test_one_seed_that_has_it_is_enough_against_absence():
    m = masses_of("words", Plant("sft", "words", 5, 0.4, seeds=(1,)), per_class=160)
    absence = evidence.measure(m, 2, emerges=False).absence(0.05)
    assert (absence.seed, absence.cell) == (1, 5)
    assert absence.p.max() == 1.0
    assert absence.p[0].max() < 0.05


def test_a_bias_is_absent_by_its_margin_and_what_was_there_before_by_its_gain():
    bias = masses_of("words", Plant("sft", "words", 5, 0.9, selective=False), per_class=160)
    absence = evidence.measure(bias, 2, emerges=False).absence(0.05)
    assert absence.p.max() < 0.05
    assert absence.names[absence.part[0, 5]] != "strength"
    before = masses_of("words", Plant("base", "words", 5, 0.4), per_class=240)
    absence = evidence.measure(before, 2, emerges=True).absence(0.05)
    assert absence.names[absence.part[0, 5]] == "gain"
    assert absence.p.max() < 0.05
    assert evidence.measure(before, 2, emerges=False).absence(0.05).p.max() == 1.0


@pytest.mark.parametrize("emerges", [False, True])
def test_the_shares_of_the_error_rate_add_up_to_all_of_it(emerges):
    e = evidence.measure(masses_of("words"), 2, emerges=emerges)
    names = [q.name for q in e.parts] + ["gain"] * emerges
    weights = [e.weight(name) for name in names]
    assert sum(weights) == pytest.approx(1.0)
    assert pytest.approx(min(e.weight("strength"), 0.7)) == evidence.LIGHTEST


# Permutations ---------------------------------------------------------------------------------------------


def test_p_is_small_at_the_planted_layer_alone_and_auroc_is_its_own():
    e = evidence.measure(masses_of("words", Plant("sft", "words", 5)), 2, emerges=False)
    assert (e.p(999) < 0.01).tolist() == [cell == 5 for cell in range(8)]
    own, rest = e.masses.own[:, 2], e.masses.rest[:, 2]
    for cell, area in enumerate(e.areas()):
        wins = [(o[:, None] > r).mean() for o, r in zip(own[:, :, cell], rest[:, :, cell], strict=True)]
        assert area == pytest.approx(np.mean(wins))


def test_p_of_answers_is_that_of_matching_the_mean_over_seeds():
    m = masses_of("answer", Plant("sft", "answer", 5))
    e = evidence.measure(m, 2, emerges=False)
    want = permutation.matching(m.answers[:, 2].mean(axis=0), m.own_answer, 999)
    np.testing.assert_array_equal(e.p(999), want)
    assert e.areas() is None
    assert (e.p(999) < 0.01).tolist() == [cell == 5 for cell in range(8)]


def test_readings_that_are_all_alike_hold_no_classifier():
    m = masses_of("words", Plant("sft", "words", 5))
    own = m.own.copy()
    own[:, 2, :, 5] = 0.4
    e = evidence.measure(replace(m, own=own), 2, emerges=False)
    assert e.constant()
    assert not e.holds(0.1).any()
