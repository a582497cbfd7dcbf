"""`growth`: strength that rises supports it, strength that falls refutes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import ROW, SMALL, judge, outcomes
from synthetic import Plant, study

from emergence.verdicts import judging


def test_strength_that_falls_does_not_grow():
    world = study(Plant("sft", "answer", 5, 0.5, grows=True), **SMALL, arms={"sft": 3})
    backwards = [dataclasses.replace(r, answers=r.answers[::-1].copy()) for r in world.runs]
    found = judging.judge([ROW["E3"]], type(world)(tuple(backwards)))
    assert {v.outcome for v in found} == {"falsified"}


def test_strength_that_rises_grows_by_its_slope_per_100_steps():
    steps = (0, 25, 50, 75, 100)
    world = study(Plant("sft", "answer", 5, 0.6, grows=True), **SMALL | {"steps": steps}, arms={"sft": 3})
    verdict = judging.judge([ROW["E3"]], world)[0]
    assert (verdict.outcome, verdict.layer) == ("supported", 5)
    assert verdict.statistic == "growth of mass per 100 steps"
    here = [i for i, p in enumerate(world.runs[0].prompts) if p.cls == "add" and p.half == 1]
    right = world.runs[0].own_answer[here]
    by_step = [
        np.mean([np.exp(r.answers[t, 5, here, right].astype(float)) for r in world.runs]) for t in range(5)
    ]
    np.testing.assert_allclose(verdict.details["by_step"], by_step)
    assert verdict.estimate == pytest.approx(100 * np.polyfit(steps, by_step, 1)[0])


def test_growth_that_is_negligible_over_all_steps_is_refuted():
    found = judge(["E3"], Plant("sft", "answer", 5, 0.02, grows=True), prompt_sd=0.005)
    assert outcomes(found, "E3") == {"falsified"}
    assert all(0 < v.estimate < 0.05 for v in found.values())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": (0, 100)}, "2 checkpoints are no trend; three are needed"),
        ({"per_class": 8}, "4 prompts of the class to judge on; at least 5 are needed"),
        ({"n_layers": 1}, "the model has no layer in band intermediate"),
    ],
)
def test_no_trend_is_given_where_there_is_none_to_be_had(settings, reason):
    found = judge(["E3"], **settings)
    assert {(v.outcome, v.reason, v.estimate) for v in found.values()} == {("inconclusive", reason, None)}


def test_strength_that_never_changes_has_no_trend():
    world = study(**SMALL, arms={"sft": 3})
    same = [dataclasses.replace(r, answers=np.full_like(r.answers, np.log(0.2))) for r in world.runs]
    for verdict in judging.judge([ROW["E3"]], type(world)(tuple(same))):
        assert verdict.outcome == "inconclusive"
        assert "strength is the same at every checkpoint" in verdict.reason
