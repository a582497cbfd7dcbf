"""`predicts correctness`: mass that goes with right answers supports it, mass that does not refutes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import ROW, SMALL
from sklearn import metrics
from synthetic import Plant, study

from emergence.verdicts import judging


def judge_with(right, seeds=3, **changes):
    """E5 where `right(mass, rng)` says which answers are right, from the own-answer mass at layer 5."""
    world = study(
        Plant("sft", "answer", 5, 0.4),
        **SMALL | {"prompt_sd": 0.15, "per_class": 120, "arms": {"sft": seeds}},
    )
    runs = []
    for run in world.arm("sft"):
        mass = np.exp(run.answers[2, 5, np.arange(len(run.prompts)), run.own_answer])
        correct = np.tile(right(mass, np.random.default_rng(run.seed)), (3, 1))
        runs.append(dataclasses.replace(run, correct=correct))
    claim = dataclasses.replace(ROW["E5"], **changes)
    return type(world)(tuple(runs)), judging.judge([claim], type(world)(tuple(runs)))


def noisy(mass, rng):
    return mass + 0.05 * rng.standard_normal(len(mass)) > 0.4


def test_mass_that_goes_with_right_answers_predicts_them():
    world, verdicts = judge_with(noisy)
    assert {(v.outcome, v.layer, v.statistic) for v in verdicts} == {("supported", 5, "AUROC")}
    halves = [
        [i for i, p in enumerate(world.runs[0].prompts) if p.cls == "add" and p.half == h] for h in (0, 1)
    ]
    areas = [
        metrics.roc_auc_score(r.correct[2, here], r.answers[2, 5, here, r.own_answer[here]])
        for r in world.runs
        for here in halves
    ]
    judged = [*halves[0], *halves[1]]
    assert verdicts[0].estimate == pytest.approx(np.mean(areas))
    assert verdicts[0].details["accuracy"] == np.mean([r.correct[2, judged] for r in world.runs])


def test_mass_that_goes_with_wrong_answers_refutes_it():
    _, verdicts = judge_with(lambda mass, rng: ~noisy(mass, rng), seeds=5)
    assert {v.outcome for v in verdicts} == {"falsified"}
    assert all(v.high < 0.5 for v in verdicts)


@pytest.mark.parametrize("value", [True, False])
def test_answers_that_are_all_alike_leave_nothing_to_predict(value):
    _, verdicts = judge_with(lambda mass, _: np.full(len(mass), value))
    reason = f"all answers are {'right' if value else 'wrong'}: nothing to predict"
    assert {(v.outcome, v.reason, v.estimate) for v in verdicts} == {("inconclusive", reason, None)}


def test_seeds_that_answer_everything_alike_do_not_count_as_seeds():
    first = []

    def only_the_first_varies(mass, rng):
        first.append(None)
        return noisy(mass, rng) if len(first) == 1 else np.ones(len(mass), dtype=bool)

    _, verdicts = judge_with(only_the_first_varies)
    assert {v.outcome for v in verdicts} == {"inconclusive"}
    assert all("or wrong, in all but 1 of 3 runs. Here at L5" in v.reason for v in verdicts)


GAIN = {"against": ("base", "shuffled"), "threshold": 0.1, "negligible": 0.05}


def gain(right_after, right_before, right_shuffled, seeds=5):
    """E5 as a gain; each argument says which answers are right, from the own-answer mass at layer 5."""
    plants = [Plant(arm, "answer", 5, 0.4) for arm in ("base", "sft", "shuffled")]
    settings = SMALL | {"prompt_sd": 0.15, "per_class": 160, "arms": {"sft": seeds, "shuffled": seeds}}
    world, runs = study(*plants, **settings), []
    for run in world.runs:
        own = run.answers[:, 5, np.arange(len(run.prompts)), run.own_answer]
        mass, rng = np.exp(own), np.random.default_rng(run.seed)
        after = right_after if run.arm == "sft" else right_shuffled
        # Step 0 is one model: the same prompts are right in every run.
        correct = [right_before(mass[0], np.random.default_rng(99)), *(after(m, rng) for m in mass[1:])]
        runs.append(dataclasses.replace(run, correct=np.stack(correct)))
    return judging.judge([dataclasses.replace(ROW["E5"], **GAIN)], type(world)(tuple(runs)))


def known(mass, rng):
    return mass + 0.05 * rng.standard_normal(len(mass)) > np.median(mass)


def guessed(mass, rng):
    return rng.random(len(mass)) < 0.5


def test_a_gain_is_there_only_where_no_untaught_model_predicts_as_well():
    def outcomes(*rules):
        return {v.outcome for v in gain(*rules)}

    assert outcomes(known, guessed, guessed) == {"supported"}
    base_as_well, shuffled_as_well = outcomes(known, known, guessed), outcomes(known, guessed, known)
    assert "falsified" in base_as_well | shuffled_as_well
    assert "supported" not in base_as_well | shuffled_as_well


def test_the_gain_that_is_shown_is_the_difference_of_the_areas():
    (verdict, *_) = gain(known, guessed, guessed)
    assert verdict.statistic == "gain of AUROC"
    assert verdict.baseline == 0
    assert verdict.low < verdict.estimate < verdict.high
    assert verdict.estimate <= verdict.details["auroc"] - 0.5 + 1e-9
    assert "(base 0." in verdict.reason
    assert "shuffled 0." in verdict.reason


def test_a_model_that_leaves_nothing_to_predict_is_taken_as_chance():
    (verdict, *_) = gain(known, lambda mass, _: np.zeros(len(mass), bool), guessed)
    assert "base nothing to predict" in verdict.reason
    assert verdict.outcome == "supported"


def test_it_is_taken_where_most_nearly_half_of_the_answers_are_right():
    world = study(Plant("sft", "answer", 5, 0.4), **SMALL | {"prompt_sd": 0.15, "per_class": 120})
    runs = []
    for run in world.arm("sft"):
        mass = np.exp(run.answers[1, 5, np.arange(len(run.prompts)), run.own_answer])
        correct = np.stack(
            [np.zeros_like(run.correct[0]), mass > np.median(mass), np.ones_like(run.correct[0])]
        )
        runs.append(dataclasses.replace(run, correct=correct))
    verdicts = judging.judge([ROW["E5"]], type(world)(tuple(runs)))
    assert {(v.step, v.outcome) for v in verdicts} == {(50, "supported")}
