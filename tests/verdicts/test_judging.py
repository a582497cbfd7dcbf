"""Numbers become decisions as docs/concepts.md says: on simulated studies whose truth is known."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from judged import LARGE, ROW, SMALL, TABLE, judge, outcomes
from synthetic import ARMS, OPERATIONS, Plant, study

from emergence.errors import BrokenExperiment, UsageError
from emergence.report import tables
from emergence.verdicts import Prediction, judging
from emergence.verdicts.verdict import Assessment, Effect

# The whole table ------------------------------------------------------------------------------------------


def test_all_thirteen_predictions_are_judged_as_planted():
    """A world like the prototype runs: answers late, no words under SFT, words where they are taught."""
    world = study(
        Plant("sft", "answer", 9, 0.5, grows=True),
        Plant("shuffled", "answer", 9, 0.9, selective=False),
        Plant("classified", "words", 6, 0.9),
        Plant("base", "words", 1, 0.06, selective=False),
        Plant("base", "hidden", 6, 3.0),
        n_layers=12, steps=(0, 50, 100, 200), per_class=200,
        arms={"sft": 5, "shuffled": 1, "classified": 5},
    )  # fmt: skip
    found = judging.judge(TABLE, world)
    assert [(v.prediction, v.cls) for v in found] == [(p.id, op) for p in TABLE for op in OPERATIONS]
    falsified = {v.prediction for v in found if v.outcome == "falsified"}
    undecided = {v.prediction for v in found if v.outcome == "inconclusive"}
    assert falsified == {"E2", "E4"}
    assert undecided <= {"E5", "C1"}  # an AUROC needs many prompts, and a bias of half of all mass too
    for v in found:
        assert all(math.isfinite(x) for x in (v.estimate, v.low, v.high, v.p) if x is not None), v
        assert v.reason
        assert v.claim in str(v)


REPORTED = ["estimate", "low", "high", "p_adjusted", "threshold", "baseline", "layer", "step"]


def test_every_verdict_has_effect_interval_n_p_threshold_baseline_place_and_ids():
    for v in (v for v in empty() if "nothing to predict" not in v.reason):
        lacking = [name for name in REPORTED if getattr(v, name) is None]
        assert lacking == [], v
        assert (v.n_prompts > 0, v.n_seeds > 0) == (True, True)
        assert v.token_ids or v.family == "stream", "what a probe reads is no token"


def test_the_same_study_gives_the_same_verdicts():
    rows = [p for p in TABLE if p.id in ("E1", "E3", "E5", "C2")]
    plants = (Plant("sft", "answer", 5, grows=True),)
    twice = [judging.judge(rows, study(*plants, **SMALL)) for _ in range(2)]
    assert twice[0] == twice[1]


@functools.cache
def empty():
    return tuple(judging.judge(TABLE, study(n_layers=8, steps=(0, 50, 100))))


def test_without_advice_the_decision_is_the_same_and_what_would_decide_it_is_not_said():
    world = study(Plant("sft", "answer", 5, 0.1), **SMALL)
    told, bare = (judging.judge([ROW["E1"]], world, advise=advise)[0] for advise in (True, False))
    assert told.outcome == bare.outcome == "inconclusive"
    assert told.reason.startswith(f"{bare.reason}. ")
    assert "needs" in told.details.keys() - bare.details.keys()


def test_what_cannot_be_measured_is_blocked_in_its_own_unit():
    """Two prompts a class are too few for anything; a threshold is shown as what it is a threshold of."""
    found = judge(["E1", "E2", "E3", "E5"], per_class=2)
    shown = {v.prediction: (v.statistic, tables.number(v.threshold, v.statistic)) for v in found.values()}
    assert {v.estimate for v in found.values()} == {None}
    assert shown == {
        "E1": ("own-answer mass", "10.0 %"),
        "E2": ("own-class mass", "10.0 %"),
        "E3": ("growth of mass over the run", "10.0 %"),
        "E5": ("AUROC", "0.60"),
    }


def test_a_world_with_nothing_in_it_supports_no_emergence():
    found = {(v.prediction, v.cls): v for v in empty()}
    for p in TABLE:
        want = {"supported" if p.test == "no classifier" else "falsified", "inconclusive"}
        assert outcomes(found, p.id) <= want


def test_a_prediction_of_ones_own_is_judged_like_the_rest():
    own = Prediction(
        "X1", "add words early", "sft", "words", "intermediate", "symbolic", "classifier", min_seeds=3
    )
    found = judge([own], Plant("sft", "words", 3, operations=("add",)), **LARGE)
    assert found["X1", "add"].supported
    assert found["X1", "multiply"].outcome == "falsified"


@pytest.mark.parametrize("prediction", ["E1", "E2", "E3", "E4", "E5", "E6", "O1"])
def test_one_seed_speaks_of_this_run_only(prediction):
    plants = [Plant(arm, family, 4, grows=True) for arm in ARMS for family in ("words", "answer")]
    found = judge([prediction], *plants, arms=dict.fromkeys(ARMS, 1), per_class=160, prompt_sd=0.15)
    assert outcomes(found, prediction) == {"inconclusive"}
    assert all("speaks of this run only" in v.reason and v.estimate is not None for v in found.values())


# Nothing to go by -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.2])
def test_constant_readings_are_inconclusive_and_never_nan(value):
    world = study(**SMALL)
    for r in world.runs:
        for name in ("words", "glyphs", "random_words", "answers"):
            getattr(r, name)[:] = np.log(value) if value else -np.inf
        r.correct[:] = True
        r.hidden[:] = 1.0
    found = judging.judge([p for p in TABLE if p.style == "symbolic"], world)
    for v in found:
        assert v.outcome == "inconclusive", v
        numbers = (v.estimate, v.low, v.high, v.p, v.p_adjusted)
        assert all(math.isfinite(x) for x in numbers if x is not None), v


def test_tied_readings_are_never_nan():
    world = study(Plant("sft", "answer", 5), **SMALL)
    for r in world.runs:
        for name in ("words", "answers", "random_words", "glyphs"):
            getattr(r, name)[:] = np.round(getattr(r, name))
    for v in judging.judge([p for p in TABLE if p.style == "symbolic"], world):
        assert all(math.isfinite(x) for x in (v.estimate, v.low, v.high, v.p) if x is not None), v


def test_too_few_prompts_to_judge_on_are_inconclusive():
    found = judge(["E1", "B1", "B3"], Plant("sft", "answer", 5), per_class=8)
    assert {v.outcome for v in found.values()} == {"inconclusive"}


# Holm -----------------------------------------------------------------------------------------------------


def test_p_is_adjusted_over_all_predictions_but_the_controls():
    """Both sides of every claim are in the family: 2 tests a claim and class."""
    rows = [ROW["B1"], ROW["B2"], ROW["C2"]]
    found = judging.judge(rows, study(**SMALL | LARGE))
    claims = [v for v in found if not v.control]
    least = min(claims, key=lambda v: v.p)
    assert {v.outcome for v in found} == {"supported"}
    assert least.p_adjusted == pytest.approx(least.p * 2 * len(claims))
    assert all(v.p_adjusted == v.p for v in found if v.control)


def test_a_verdict_says_that_a_control_it_depends_on_is_undecided():
    plants = [Plant("sft", "answer", 5), Plant("sft", "random_words", 4, 0.08)]
    found = judge(["E1", "C2"], *plants)
    assert outcomes(found, "C2") == {"inconclusive"}
    assert outcomes(found, "E1") == {"supported"}
    assert {v.depends for v in found.values() if v.supported} == {"control C2 is undecided"}
    assert all("(control C2 is undecided)" in str(v) for v in found.values() if v.supported)
    alone = judge(["E1"], *plants)
    assert {v.depends for v in alone.values()} == {""}


def test_a_verdict_that_too_few_deals_share_is_inconclusive():
    """Half of the mass is at one layer in one half of the prompts: another deal finds it at neither."""
    world = study(Plant("sft", "answer", 3, 0.5), Plant("sft", "answer", 5, 0.5), **SMALL, arms={"sft": 3})
    for r in world.runs:
        for i, p in enumerate(r.prompts):
            weak = 3 if p.half == 0 else 5
            r.answers[1:, weak, i] = np.log(0.02)
    found = judging.judge([ROW["E1"]], world)
    assert {v.outcome for v in found} == {"inconclusive"}
    swapped = [
        dataclasses.replace(
            r, prompts=tuple(dataclasses.replace(p, half=i % 2) for i, p in enumerate(r.prompts))
        )
        for r in world.runs
    ]
    for v in judging.judge([ROW["E1"]], type(world)(tuple(swapped))):
        assert v.outcome == "inconclusive" or v.stands >= 36


def side(p: float, **given) -> Assessment:
    """An assessment whose effect is there with this p, and negligible with the same."""
    effect = Effect("own-class mass", "words", estimate=0.5, low=0.4, high=0.6, threshold=0.1, p=p)
    return Assessment(effect, gone=effect, when_there="it is there", when_gone="it is not", **given)


@pytest.mark.parametrize(("stands", "outcome"), [(35, "inconclusive"), (36, "supported")])
def test_a_verdict_stands_in_thirty_six_of_forty_deals(stands, outcome):
    assert judging._outcome(ROW["E1"], side(1e-4, holds=True, stands=stands), 1e-4, 1.0)[0] == outcome


def test_both_sides_of_every_claim_are_in_one_family_and_no_control_is():
    """Holm by hand: of four p-values .01, .01, .02, .02 the adjusted ones are .04, .04, .04, .04."""
    claims = [ROW["E1"], ROW["E2"], ROW["C1"]]
    there, gone = judging._adjusted(claims, [side(0.01), side(0.02), side(0.01)])
    assert there == pytest.approx([0.04, 0.04, 0.01])
    assert gone == pytest.approx([0.04, 0.04, 0.01])


# Broken on purpose ----------------------------------------------------------------------------------------


def test_layers_chosen_and_judged_on_the_same_prompts_are_caught():
    world = study(**SMALL)
    first = world.runs[0].prompts
    twice = (
        *first,
        *(dataclasses.replace(p, half=1 - p.half, text=f"again {p.text}") for p in first if p.cls == "add"),
    )
    runs = (dataclasses.replace(world.runs[0], prompts=twice), *world.runs[1:])
    with pytest.raises(BrokenExperiment, match="chosen and judged on the same prompts: 60 problems"):
        judging.judge(TABLE, type(world)(runs))


@pytest.mark.parametrize("value", [np.nan, 0.7])
def test_readings_that_are_no_probabilities_are_an_error(value):
    world = study(**SMALL)
    world.runs[2].answers[1, 3, 7, 0] = value
    with pytest.raises(BrokenExperiment, match="sft seed 2: answers are no log-probabilities"):
        judging.judge([ROW["E1"]], world)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "grpo"}, "arm 'grpo' was not run"),
        ({"style": "sung"}, "style 'sung' was not read"),
        ({"band": "upper"}, "band 'upper' is unknown"),
    ],
)
def test_a_prediction_about_what_was_not_run_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        judge([dataclasses.replace(ROW["E1"], **change)])
