"""`classifier` and `no classifier`: a planted one is found at its layer, a bias or a copy is none."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from judged import LARGE, ROW, SMALL, judge, kinds, outcomes
from synthetic import OPERATIONS, Plant, study

from emergence.verdicts import judging

# Place ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 3, 6])
def test_a_planted_classifier_is_found_at_its_layer(layer):
    found = judge(["E1", "E2"], Plant("sft", "answer", layer), Plant("sft", "words", layer))
    assert {(v.outcome, v.layer) for v in found.values()} == {("supported", layer)}


def test_a_planted_classifier_is_found_nowhere_else():
    rest = dataclasses.replace(ROW["E2"], id="rest", band="middle")
    found = judge([rest, "E4"], Plant("sft", "words", 6), Plant("sft", "answer", 6), **LARGE)
    assert {v.outcome for v in found.values()} == {"falsified"}


def test_the_output_layer_counts_for_nothing():
    found = judge(["E1", "E2", "E6"], Plant("sft", "answer", 7, 0.9), Plant("sft", "words", 7, 0.9), **LARGE)
    assert {v.outcome for v in found.values()} == {"falsified"}


# What is no classifier ------------------------------------------------------------------------------------


def test_bias_is_called_bias():
    """40 % of all mass on every class's words, whichever the prompt: strong, and tells nothing."""
    found = judge(["E2", "B1"], Plant("base", "words", 5, 0.9, selective=False), **LARGE)
    assert kinds(found, "B1") == {"bias"}
    assert outcomes(found, "E2") == {"falsified"}
    assert outcomes(found, "B1") == {"supported"}
    assert all("bias" in found["B1", cls].reason for cls in OPERATIONS)
    for v in found.values():
        assert v.estimate < 0.05, "shown is what decided: there is no discrimination"
        assert max(v.details["strength"]["estimate"]) > 0.2, "strength is beside it"


def test_a_bias_is_not_called_one_from_a_few_prompts():
    """Strength is certain, and that it tells nothing is not: 60 prompts are too few for that."""
    found = judge(["E2"], Plant("sft", "words", 5, 0.9, selective=False))
    assert kinds(found, "E2") == {"unclear"}
    assert outcomes(found, "E2") == {"inconclusive"}
    assert all("bias" not in v.reason for v in found.values())


def test_one_word_favoured_on_every_prompt_is_a_bias_too():
    """`multiply` everywhere beats the other words on multiplication prompts, and yet recognises nothing."""
    world = study(**SMALL, **LARGE)
    for r in world.runs:
        r.words[1:, 5, :, OPERATIONS.index("multiply")] = np.log(0.5)
        r.words[1:, 5] += 1e-3 * np.random.default_rng(r.seed).standard_normal(r.words[1:, 5].shape)
    found = judging.judge([ROW["E2"]], world)
    assert {v.outcome for v in found} == {"falsified"}
    assert found[2].details["kind"] == "bias"


def test_digit_bias_is_no_answer_classifier():
    found = judge(
        ["E1", "C1"],
        Plant("sft", "answer", 5, 0.99, selective=False),
        Plant("shuffled", "answer", 5, 0.99, False),
        **(LARGE | {"arms": {"sft": 5, "shuffled": 1}, "per_class": 400}),
    )
    assert outcomes(found, "E1") == {"falsified"}
    assert outcomes(found, "C1") == {"supported"}


def test_copying_is_called_copying():
    found = judge(["E2"], Plant("sft", "glyphs", 5, 0.8), **LARGE)
    assert kinds(found, "E2") == {"copying"}
    assert outcomes(found, "E2") == {"falsified"}
    assert all("copying" in v.reason for v in found.values())


def test_answers_that_stand_in_the_prompt_are_left_out_as_copying():
    world = study(Plant("sft", "answer", 5, 0.6), **SMALL | LARGE | {"per_class": 320})
    rng = np.random.default_rng(0)
    copied = rng.random(len(world.runs[0].prompts)) < 0.5
    runs = []
    for r in world.runs:
        answers = r.answers.copy()
        answers[1:, 5, np.flatnonzero(~copied), r.own_answer[~copied]] = np.log(
            1e-3
        )  # mass only where it is copied
        runs.append(dataclasses.replace(r, answers=answers, copied=copied))
    found = judging.judge([ROW["E1"]], type(world)(tuple(runs)))
    assert {v.outcome for v in found} == {"falsified"}
    assert all(v.n_prompts < 200 and v.details["copied"] > 100 for v in found)


def test_what_the_base_model_has_already_did_not_emerge():
    found = judge(
        ["E1", "E2"], Plant("base", "answer", 5), Plant("base", "words", 5), **LARGE | {"per_class": 400}
    )
    assert {v.outcome for v in found.values()} == {"falsified"}
    assert kinds(found, "E1") == {"earlier"}


def test_growth_over_what_the_base_model_has_is_emergence():
    found = judge(["E1"], Plant("base", "answer", 5, 0.15), Plant("sft", "answer", 5, 0.4))
    assert outcomes(found, "E1") == {"supported"}
    assert all(0.1 < v.baseline < 0.2 for v in found.values())


def test_a_mass_that_is_neither_above_nor_below_the_threshold_is_inconclusive():
    found = judge(["E2", "B1"], Plant("base", "words", 5, 0.1), prompt_sd=0.08)
    assert outcomes(found, "B1") == {"inconclusive"}


# Steps ----------------------------------------------------------------------------------------------------


def test_onset_is_the_interval_between_checkpoints():
    found = judge(["E1"], Plant("sft", "answer", 5, from_step=2), steps=(0, 50, 100, 200))
    assert {v.onset for v in found.values()} == {(50, 100)}


def test_shuffled_answers_are_looked_at_at_every_checkpoint():
    """A classifier that comes and goes is none at the end, and fails the control all the same."""
    world = study(Plant("shuffled", "answer", 5), **(SMALL | {"arms": {"shuffled": 2}}))
    for r in world.runs:
        r.answers[2] = r.answers[0]
    found = judging.judge([ROW["C1"]], world)
    assert {(v.outcome, v.layer, v.step) for v in found} == {("falsified", 5, 50)}


def test_a_prediction_of_absence_has_the_outcomes_of_its_opposite():
    """The criterion is one; only what its outcome is called depends on the claim."""
    opposite = dataclasses.replace(ROW["E2"], id="not E2", test="no classifier")
    for plants in ([Plant("sft", "words", 5)], []):
        found = judge(["E2", opposite], *plants, **LARGE)
        for cls in OPERATIONS:
            claim, absence = found["E2", cls], found["not E2", cls]
            assert {claim.outcome, absence.outcome} == {"supported", "falsified"}
            assert claim.estimate == absence.estimate
            assert claim.reason.partition("p = ")[0] == absence.reason.partition("p = ")[0]


def test_a_word_classifier_comes_with_its_confusion_table():
    found = judge(["E2", "E1"], Plant("sft", "words", 5), Plant("sft", "answer", 5))
    for k, cls in enumerate(OPERATIONS):
        table = np.array(found["E2", cls].details["confusion"])
        assert table.sum(axis=1).tolist() == [180, 180, 180], "3 seeds, 60 prompts of each class"
        assert table[k].argmax() == k
        assert found["E2", cls].details["balanced_accuracy"] > 0.95
        assert "confusion" not in found["E1", cls].details, "what is read of answers is no class"


def test_the_baseline_is_the_mass_of_step_0_at_the_same_layer():
    world = study(Plant("base", "words", 5, 0.15), Plant("sft", "words", 5), **SMALL)
    (verdict, *_) = judging.judge([ROW["E2"]], world)
    judged = [i for i, p in enumerate(world.runs[0].prompts) if p.cls == "add"]
    runs = world.arm("sft")
    strength = verdict.details["decided by"]["strength"]["estimate"]
    for step, number in ((0, verdict.baseline), (2, strength)):
        want = np.mean([np.exp(r.words[step, 5, judged, 0].astype(float)) for r in runs])
        assert number == pytest.approx(want)


def test_random_words_show_the_largest_set_of_each_layer():
    found = judge(["C2"], Plant("sft", "random_words", 5, 0.9))
    details = found["C2", "add"].details
    assert details["layers"] == list(range(7))
    assert np.argmax(details["strength"]["estimate"]) == 5


# What decides ---------------------------------------------------------------------------------------------


def test_a_word_that_is_wrong_on_every_prompt_is_no_classifier():
    """The next class's word holds more than the own one, on every prompt."""
    world = study(Plant("sft", "words", 5, 0.3), **SMALL, arms={"sft": 3})
    for r in world.runs:
        for i, p in enumerate(r.prompts):
            r.words[1:, 5, i, (OPERATIONS.index(p.cls) + 1) % 3] = np.log(0.42)
    assert {v.outcome for v in judging.judge([ROW["E2"]], world)} == {"inconclusive"}


def test_the_part_that_decided_is_the_one_that_is_shown():
    world = study(Plant("sft", "words", 5, 0.6), **SMALL, arms={"sft": 3})
    for r in world.runs:
        for i, p in enumerate(r.prompts):
            r.words[1:, 5, i, (OPERATIONS.index(p.cls) + 1) % 3] = np.log(0.3)
    for v in judging.judge([ROW["E2"]], world):
        assert v.outcome == "supported"
        assert v.statistic in ("own-class mass minus the largest other class",) or "prompts" in v.statistic
        assert (v.estimate, v.threshold) == (pytest.approx(0.3, abs=0.03), 0.1)
        assert v.details["decided by"]["strength"]["estimate"] == pytest.approx(0.6, abs=0.03)


def test_absence_shows_the_bound_that_cleared_and_names_readout_and_position():
    for v in judge(["B1"], per_class=160, arms={"sft": 1}).values():
        assert v.outcome == "supported"
        assert (v.threshold, v.low <= v.estimate < v.high < v.threshold) == (0.05, True)
        assert "logit lens, last prompt token" in v.reason
        assert v.stands == 40


@pytest.mark.parametrize(("seeds", "outcome", "excluded"), [(3, "inconclusive", 63), (5, "falsified", 45)])
def test_what_a_few_seeds_lack_is_said_of_a_share_of_seeds(seeds, outcome, excluded):
    found = judge(["E2"], **(LARGE | {"arms": {"sft": seeds}}))
    assert outcomes(found, "E2") == {outcome}
    assert all(f"only that more than {excluded} % of seeds have it" in v.reason for v in found.values())


def test_operands_that_tell_the_class_support_no_word_classifier():
    """Each operation has operands of its own range: a mass that tells their size would pass as well."""
    world = study(Plant("sft", "words", 5, 0.6), **SMALL, arms={"sft": 3})
    shift = {cls: 60 * k for k, cls in enumerate(OPERATIONS)}
    runs = [
        dataclasses.replace(
            r,
            prompts=tuple(
                dataclasses.replace(p, numbers=tuple(n + shift[p.cls] for n in p.numbers)) for p in r.prompts
            ),
        )
        for r in world.runs
    ]
    found = judging.judge([ROW["E2"]], type(world)(tuple(runs)))
    assert {v.outcome for v in found} == {"inconclusive"}
    assert all(v.reason.startswith("operands alone tell the class") for v in found)


def test_a_claim_about_a_task_that_was_not_learned_is_inconclusive():
    claim = dataclasses.replace(ROW["E1"], min_accuracy=0.9)
    world = study(Plant("sft", "answer", 5), **SMALL, arms={"sft": 3})
    right, wrong = [], []
    for r in world.runs:
        # Where it was asked, each time the other way round than the last tokens say.
        asked = np.where(np.isnan(r.exact), np.nan, np.float32(1))
        right.append(dataclasses.replace(r, exact=asked, correct=np.zeros_like(r.correct)))
        wrong.append(dataclasses.replace(r, exact=0 * asked, correct=np.ones_like(r.correct)))
    assert {v.outcome for v in judging.judge([claim], type(world)(tuple(right)))} == {"supported"}
    found = judging.judge([claim], type(world)(tuple(wrong)))
    assert {v.outcome for v in found} == {"inconclusive"}
    assert all(
        v.reason.startswith(
            "the task was not learned: 0% of whole answers are right, 90% are needed. Here at L5"
        )
        for v in found
    )


def test_prompts_that_could_be_copied_are_asked_for_on_top():
    world = study(**SMALL | {"per_class": 100, "arms": {"sft": 1}})
    copied = np.random.default_rng(0).random(len(world.runs[0].prompts)) < 0.5
    runs = tuple(dataclasses.replace(r, copied=copied) for r in world.runs)
    for v in judging.judge([ROW["B2"]], type(world)(runs)):
        assert v.outcome == "inconclusive"
        judged = int(re.search(r"\((\d+) of them that cannot be copied\)", v.reason)[1])
        assert v.details["needs"]["prompts"] == pytest.approx(judged * 100 / v.n_prompts, abs=10)
        assert f"about {v.details['needs']['prompts']} prompts would decide it" in v.reason


def test_an_inconclusive_verdict_says_what_would_decide_it():
    for v in judge(["B1"], arms={"sft": 1}, advise=True).values():
        assert v.outcome == "inconclusive"
        assert "If there is as little as it looks, about " in v.reason
        assert 60 < v.details["needs"]["prompts"] <= 160
        assert "would have shown" not in v.reason
