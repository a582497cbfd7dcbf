"""`replication`: every seed needs a classifier of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged import LARGE, ROW, SMALL, judge, outcomes
from synthetic import OPERATIONS, Plant, study

from emergence.analysis import evidence
from emergence.verdicts.criteria import replication
from emergence.verdicts.measurements import Measurements


def test_one_seed_that_lacks_it_is_no_replication():
    plant = Plant("sft", "answer", 5, 0.6, seeds=(0, 1))
    found = judge(["E6"], plant, **LARGE | {"arms": {"sft": 3}})
    assert outcomes(found, "E6") == {"falsified"}
    assert all(v.details["seeds_clear"] == [True, True, False] for v in found.values())
    assert all(v.reason.startswith("seed 2 lacks it: ") for v in found.values())
    assert all(v.high < v.threshold == 0.05 for v in found.values())


def test_one_seed_of_eight_that_neither_has_nor_lacks_it_leaves_replication_open():
    """Seven hold 30 %, one about 10 %: together they have it, and still not every one of them."""
    plants = [
        Plant("sft", "answer", 5, 0.3, seeds=tuple(range(7))),
        Plant("sft", "answer", 5, 0.1, seeds=(7,)),
    ]
    found = judge(["E1", "E6"], *plants, arms={"sft": 8}, prompt_sd=0.05)
    assert outcomes(found, "E1") == {"supported"}
    assert outcomes(found, "E6") == {"inconclusive"}
    assert all("7 of 8 seeds have it alone" in found["E6", cls].reason for cls in OPERATIONS)


def test_every_seed_with_a_classifier_of_its_own_is_a_replication():
    found = judge(["E6", "E1"], Plant("sft", "answer", 5, 0.6))
    assert outcomes(found, "E6") == {"supported"}
    for cls in OPERATIONS:
        v, together = found["E6", cls], found["E1", cls]
        assert (v.details["seeds_clear"], v.details["seeds_absent"]) == ([True] * 3, [False] * 3)
        assert v.details["layers_by_seed"] == [5, 5, 5]
        assert v.low <= together.low, "shown is the seed where it is least clear"
        assert v.reason.startswith("3 of 3 seeds have it alone (strength: seed 0 ")
        assert v.p >= together.p


def test_each_seed_chooses_a_layer_by_itself():
    plants = [Plant("sft", "answer", layer, 0.5, seeds=(seed,)) for seed, layer in ((0, 2), (1, 4), (2, 6))]
    found = judge(["E6"], *plants)
    assert all(v.details["layers_by_seed"] == [2, 4, 6] for v in found.values())
    assert all(v.details["seeds_clear"] == [True] * 3 for v in found.values())


def test_what_cannot_be_measured_together_cannot_be_replicated():
    found = judge(["E6"], per_class=8)
    assert {(v.outcome, v.estimate) for v in found.values()} == {("inconclusive", None)}


def test_that_one_seed_lacks_it_pays_for_as_many_chances_as_there_are_seeds():
    world = study(Plant("sft", "answer", 4, 0.5, seeds=(1, 2)), **SMALL | {"per_class": 120}, arms={"sft": 3})
    row = replace(ROW["E6"], min_seeds=3)
    measured = Measurements(world)
    got = replication.assess(row, "add", "answer", measured).gone
    m = measured.masses(row, "add", "answer")
    alone = [
        evidence.measure(m.of_seed(i), len(m.steps) - 1, True).absence(row.negligible).p.max()
        for i in range(3)
    ]
    assert 0 < min(alone) < 0.2
    assert got.p == pytest.approx(3 * min(alone))
