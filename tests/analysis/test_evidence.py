"""Evidence chooses a cell on one half, judges it on the other, and its parts are plain means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import Plant, study

from emergence.analysis import evidence, intervals, masses, permutation

SMALL = {"n_layers": 8, "steps": (0, 50, 100), "styles": ("symbolic",), "hidden": 2}
BOUNDS = {"strength": 0.1, "apart": 0.0, "elsewhere": 0.0, "gain": 0.1}


def masses_of(family, *plants, **settings):
    runs = study(*plants, **(SMALL | {"arms": {"sft": 3}} | settings)).runs
    return masses.from_readings(runs, "symbolic", family, "add")


def test_parts_are_the_means_of_the_evaluation_half():
    m = masses_of("words", Plant("base", "words", 4, 0.2), Plant("sft", "words", 5))
    e = evidence.measure(m, 2, emerges=True)
    here, there = m.half == 1, m.rest_half == 1
    own, base = m.own[:, 2][:, here].mean(axis=(0, 1)), m.own[:, 0][:, here].mean(axis=(0, 1))
    rest, base_rest = (m.rest[:, t][:, there].mean(axis=(0, 1)) for t in (2, 0))
    wanted = {
        "strength": own,
        "apart": own - m.others[:, 2][:, here].mean(axis=(0, 1)),
        "elsewhere": own - rest,
        "gain": (own - rest) - (base - base_rest),
    }
    assert e.parts.keys() == wanted.keys()
    for name, want in wanted.items():
        np.testing.assert_allclose(e.parts[name].estimate, want, atol=1e-12)


def test_answers_have_no_other_classes_prompts_to_compare_with():
    e = evidence.measure(masses_of("answer", Plant("sft", "answer", 5)), 2, emerges=True)
    assert set(e.parts) == {"strength", "apart", "gain"}
    assert set(evidence.measure(e.masses, 2, emerges=False).parts) == {"strength", "apart"}


@pytest.mark.parametrize("family", ["words", "answer"])
def test_the_cell_is_chosen_on_the_selection_half_and_judged_on_the_other(family):
    """Strong at layer 3 on the half that chooses, at layer 5 on the half that judges."""
    m = masses_of(family, Plant("sft", family, 3), Plant("sft", family, 5))
    own = m.own.copy()
    own[:, :, m.half == 0, 5] *= 0.2
    own[:, :, m.half == 1, 3] *= 0.2
    e = evidence.measure(replace(m, own=own), 2, emerges=False)
    assert (e.chosen, e.strongest) == (3, 3)
    assert e.parts["strength"].estimate.argmax() == 5
    assert evidence.measure(replace(m, own=own), 2, emerges=False, select=1).chosen == 5


def test_the_chosen_cell_has_the_largest_smallest_part():
    """A bias at layer 3 is stronger than the classifier at layer 5, and tells nothing."""
    m = masses_of("words", Plant("sft", "words", 3, 0.99, selective=False), Plant("sft", "words", 5, 0.2))
    e = evidence.measure(m, 2, emerges=False)
    assert (e.strongest, e.chosen) == (3, 5)


def test_the_ceiling_is_the_upper_end_of_the_smallest_part():
    m = masses_of("words", Plant("sft", "words", 5))
    e = evidence.measure(m, 2, emerges=False)
    for cell in range(8):
        strata = evidence._parts(m, 2, 0, False)
        on_selection = {name: sum(x[:, :, cell].mean() for x in of_part) for name, of_part in strata.items()}
        assert e.ceiling[cell] == e.parts[min(on_selection, key=on_selection.get)].high[cell]
    assert not e.absent(0.1)
    assert evidence.measure(m, 0, emerges=False).absent(0.1)


def test_a_cell_is_clear_where_every_interval_lies_above_its_bound():
    e = evidence.measure(masses_of("words", Plant("sft", "words", 5)), 2, emerges=True)
    assert [e.clear(cell, BOUNDS) for cell in range(8)] == [cell == 5 for cell in range(8)]
    for name in BOUNDS:
        assert not e.clear(5, BOUNDS | {name: 1.0}), name


def test_a_higher_level_makes_absence_harder():
    m = masses_of("words", Plant("sft", "words", 5, 0.05))
    ends = [evidence.measure(m, 2, False, level=level).ceiling[5] for level in (0.9, intervals.LEVEL, 0.999)]
    assert ends == sorted(ends)
    assert ends[0] < ends[2]


def test_p_is_small_at_the_planted_layer_alone_and_auroc_is_its_own():
    e = evidence.measure(masses_of("words", Plant("sft", "words", 5)), 2, emerges=False)
    p, areas = e.p(999)
    assert (p < 0.01).tolist() == [cell == 5 for cell in range(8)]
    own, rest = e.masses.own[:, 2][:, e.masses.half == 1], e.masses.rest[:, 2][:, e.masses.rest_half == 1]
    for cell in range(8):
        wins = [(o[:, None] > r).mean() for o, r in zip(own[:, :, cell], rest[:, :, cell], strict=True)]
        assert areas[cell] == pytest.approx(np.mean(wins))


def test_p_of_answers_is_that_of_matching_the_mean_over_seeds():
    m = masses_of("answer", Plant("sft", "answer", 5))
    p, areas = evidence.measure(m, 2, emerges=False).p(999)
    here = m.half == 1
    want = permutation.matching(m.answers[:, 2].mean(axis=0)[:, here], m.own_answer[here], 999)
    np.testing.assert_array_equal(p, want)
    assert areas is None
    assert (p < 0.01).tolist() == [cell == 5 for cell in range(8)]


def test_present_needs_clear_intervals_a_small_p_and_readings_that_vary():
    e = evidence.measure(masses_of("words", Plant("sft", "words", 5)), 2, emerges=True)
    assert evidence.present(e, BOUNDS, 0.01, 999)
    assert not evidence.present(e, BOUNDS | {"strength": 0.9}, 0.01, 999)
    assert not evidence.present(e, BOUNDS, 0.001, 999), "999 permutations give no p below 0.001"
    own = e.masses.own.copy()
    own[:, 2, :, 5] = 0.4
    constant = evidence.measure(replace(e.masses, own=own), 2, emerges=True)
    assert constant.clear(constant.chosen, BOUNDS)
    assert constant.constant(5)
    assert not evidence.present(constant, BOUNDS, 0.01, 999)
