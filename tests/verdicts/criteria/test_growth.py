"""`growth`: strength that rises supports it, strength that falls refutes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import LARGE, ROW, SMALL, judge, outcomes
from synthetic import Plant, study

from emergence.verdicts import judging


def test_strength_that_falls_does_not_grow():
    world = study(Plant("sft", "answer", 5, 0.5, grows=True), **SMALL, **LARGE)
    backwards = [dataclasses.replace(r, answers=r.answers[::-1].copy()) for r in world.runs]
    found = judging.judge([ROW["E3"]], type(world)(tuple(backwards)))
    assert {v.outcome for v in found} == {"falsified"}


def test_strength_that_rises_grows_by_its_slope_over_the_run():
    steps = (0, 25, 50, 75, 100)
    world = study(Plant("sft", "answer", 5, 0.6, grows=True), **SMALL | {"steps": steps}, arms={"sft": 3})
    verdict = judging.judge([ROW["E3"]], world)[0]
    assert (verdict.outcome, verdict.layer) == ("supported", 5)
    assert verdict.statistic == "growth of mass over the run"
    here = [i for i, p in enumerate(world.runs[0].prompts) if p.cls == "add"]
    right = world.runs[0].own_answer[here]
    by_step = [
        np.mean([np.exp(r.answers[t, 5, here, right].astype(float)) for r in world.runs]) for t in range(5)
    ]
    np.testing.assert_allclose(verdict.details["by_step"], by_step)
    assert verdict.estimate == pytest.approx(100 * np.polyfit(steps, by_step, 1)[0])


def test_growth_that_is_negligible_over_all_steps_is_refuted():
    plant = Plant("sft", "answer", 5, 0.01, grows=True)
    found = judge(["E3"], plant, prompt_sd=0.005, **LARGE | {"per_class": 400})
    assert outcomes(found, "E3") == {"falsified"}
    assert all(0 < v.estimate < v.high < v.threshold == 0.05 for v in found.values())


def test_growth_of_two_points_is_never_called_growth():
    """More than nothing, for certain, and yet less than what counts as something."""
    plant = Plant("sft", "answer", 5, 0.02, grows=True)
    found = judge(["E3"], plant, Plant("base", "answer", 5, 0.3), prompt_sd=0.005, seed_sd=0.0)
    assert outcomes(found, "E3") == {"inconclusive"}
    claim = dataclasses.replace(ROW["E3"], threshold=0.0)
    assert {v.outcome for v in judge([claim], plant, prompt_sd=0.005).values()} == {"inconclusive"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": (0, 100)}, "2 checkpoints are no trend; three are needed"),
        ({"per_class": 8}, "8 prompts of the class to judge on; at least 30 are needed"),
        ({"n_layers": 1}, "the model has no layer in band intermediate"),
    ],
)
def test_no_trend_is_given_where_there_is_none_to_be_had(settings, reason):
    found = judge(["E3"], **settings)
    assert {(v.outcome, v.reason, v.estimate) for v in found.values()} == {("inconclusive", reason, None)}


def test_strength_that_never_changes_is_no_growth_and_no_nan():
    world = study(**SMALL, arms={"sft": 3})
    same = [dataclasses.replace(r, answers=np.full_like(r.answers, np.log(0.2))) for r in world.runs]
    for verdict in judging.judge([ROW["E3"]], type(world)(tuple(same))):
        assert verdict.outcome == "inconclusive"
        assert (verdict.estimate, verdict.low, verdict.high) == (0.0, 0.0, 0.0)
