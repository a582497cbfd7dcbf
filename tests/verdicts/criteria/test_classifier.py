"""`classifier` and `no classifier`: a planted one is found at its layer, a bias or a copy is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import ROW, SMALL, judge, kinds, outcomes
from synthetic import OPERATIONS, Plant, study

from emergence.verdicts import judging

# Place ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 3, 6])
def test_a_planted_classifier_is_found_at_its_layer(layer):
    found = judge(["E1", "E2"], Plant("sft", "answer", layer), Plant("sft", "words", layer))
    assert {(v.outcome, v.layer) for v in found.values()} == {("supported", layer)}


def test_a_planted_classifier_is_found_nowhere_else():
    rest = dataclasses.replace(ROW["E2"], id="rest", band="middle")
    found = judge([rest, "E4"], Plant("sft", "words", 6), Plant("sft", "answer", 6))
    assert {v.outcome for v in found.values()} == {"falsified"}


def test_the_output_layer_counts_for_nothing():
    found = judge(["E1", "E2", "E6"], Plant("sft", "answer", 7, 0.9), Plant("sft", "words", 7, 0.9))
    assert {v.outcome for v in found.values()} == {"falsified"}


# What is no classifier ------------------------------------------------------------------------------------


def test_bias_is_called_bias():
    """40 % of all mass on every class's words, whichever the prompt: strong, and tells nothing."""
    found = judge(["E2", "B1"], Plant("base", "words", 5, 0.9, selective=False))
    assert kinds(found, "E2") == {"bias"}
    assert outcomes(found, "E2") == {"falsified"}
    assert outcomes(found, "B1") == {"supported"}
    assert all("bias" in v.reason for v in found.values())
    assert all(v.estimate > 0.2 for v in found.values())


def test_one_word_favoured_on_every_prompt_is_a_bias_too():
    """`multiply` everywhere beats the other words on multiplication prompts, and yet recognises nothing."""
    world = study(**SMALL, arms={"sft": 3})
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
    )
    assert outcomes(found, "E1") == {"falsified"}
    assert outcomes(found, "C1") == {"supported"}


def test_copying_is_called_copying():
    found = judge(["E2"], Plant("sft", "glyphs", 5, 0.8))
    assert kinds(found, "E2") == {"copying"}
    assert outcomes(found, "E2") == {"falsified"}
    assert all("copying" in v.reason for v in found.values())


def test_answers_that_stand_in_the_prompt_are_left_out_as_copying():
    world = study(Plant("sft", "answer", 5, 0.6), **SMALL, arms={"sft": 3})
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
    assert all(v.n_prompts < 30 and v.details["copied"] > 0 for v in found)


def test_what_the_base_model_has_already_did_not_emerge():
    found = judge(["E1", "E2"], Plant("base", "answer", 5), Plant("base", "words", 5))
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
        found = judge(["E2", opposite], *plants)
        for cls in OPERATIONS:
            claim, absence = found["E2", cls], found["not E2", cls]
            assert {claim.outcome, absence.outcome} == {"supported", "falsified"}
            assert claim.estimate == absence.estimate
            assert claim.reason.partition("p = ")[0] == absence.reason.partition("p = ")[0]


def test_a_word_classifier_comes_with_its_confusion_table():
    found = judge(["E2", "E1"], Plant("sft", "words", 5), Plant("sft", "answer", 5))
    for k, cls in enumerate(OPERATIONS):
        table = np.array(found["E2", cls].details["confusion"])
        assert table.sum(axis=1).tolist() == [90, 90, 90], "3 seeds, 30 prompts of each class"
        assert table[k].argmax() == k
        assert found["E2", cls].details["balanced_accuracy"] > 0.95
        assert "confusion" not in found["E1", cls].details, "what is read of answers is no class"


def test_the_baseline_is_the_mass_of_step_0_at_the_same_layer():
    world = study(Plant("base", "words", 5, 0.15), Plant("sft", "words", 5), **SMALL)
    (verdict, *_) = judging.judge([ROW["E2"]], world)
    judged = [i for i, p in enumerate(world.runs[0].prompts) if p.cls == "add" and p.half == 1]
    runs = world.arm("sft")
    for step, number in ((0, verdict.baseline), (2, verdict.estimate)):
        want = np.mean([np.exp(r.words[step, 5, judged, 0].astype(float)) for r in runs])
        assert number == pytest.approx(want)


def test_random_words_show_the_largest_set_of_each_layer():
    found = judge(["C2"], Plant("sft", "random_words", 5, 0.9))
    details = found["C2", "add"].details
    assert details["layers"] == list(range(7))
    assert np.argmax(details["strength"]["estimate"]) == 5
