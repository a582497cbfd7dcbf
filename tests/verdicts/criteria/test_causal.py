"""A part that is used and one that is only readable are told apart, and what is neither is left open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exchanged import Truth, study

from emergence.analysis.carried import Carried
from emergence.verdicts import Prediction, judge

USED = Prediction("K", "a claim", arm="sft", family="stream", band="at 54 %", style="symbolic", test="used")
OPERATION = replace(USED, test="carries the operation")
WORDS = replace(USED, family="words")


def verdict(p: Prediction, truth: Truth, seeds: int = 5, per_class: int = 160):
    """Of 160 pairs: fewer could hold none of those that carry everything, and are no absence."""
    return judge([p], study(truth, seeds, per_class))[0]


def test_few_pairs_that_carry_nothing_leave_it_open_whether_one_in_twenty_carries_all() -> None:
    assert verdict(USED, Truth(noise=0.005), per_class=60).outcome == "inconclusive"
    assert verdict(USED, Truth(noise=0.005)).outcome == "falsified"


def test_a_part_that_carries_the_answer_is_used() -> None:
    found = verdict(USED, Truth(share=0.6, placebo=0.1))
    assert found.outcome == "supported", found
    assert found.estimate == pytest.approx(0.5, abs=0.05), "what the placebos carry is taken off"
    assert found.low < found.estimate < found.high
    assert found.layer in (5, 6, 7)
    assert found.stands == 40
    assert found.details["share"] == pytest.approx([0.6] * 3, abs=0.05)


def test_a_part_that_carries_nothing_is_not_used() -> None:
    found = verdict(USED, Truth())
    assert found.outcome == "falsified", found
    assert found.high < 0.05


def test_an_exchange_that_does_no_more_than_damage_is_not_used() -> None:
    """A bar without placebos would call it an effect: it carries 30 %."""
    found = verdict(USED, Truth(share=0.3, placebo=0.3))
    assert found.outcome == "falsified", found


def test_what_lies_between_the_bounds_is_left_open() -> None:
    assert verdict(USED, Truth(share=0.075, noise=0.05)).outcome == "inconclusive"


def test_three_seeds_without_it_do_not_speak_of_training() -> None:
    found = verdict(USED, Truth(), seeds=3)
    assert found.outcome == "inconclusive"
    assert "5 are needed to speak of training" in found.reason


def test_one_seed_that_has_it_keeps_it_from_being_negligible() -> None:
    assert verdict(USED, Truth(share=0.6, all_or_nothing=1)).outcome == "inconclusive"


def test_each_half_is_judged_at_the_layer_that_the_other_half_chose() -> None:
    """Each half has a layer of its own in which it carries all; at the other half's it carries nothing."""
    net = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])[:, None]
    deal = np.array([[True, True, False, False]])
    found = Carried(np.arange(2), net, net, np.ones(2), np.zeros((2, 19)), deal)
    assert found.chosen.tolist() == [[0, 1]]
    assert not found.judged.any()


def test_a_table_that_asks_for_many_sign_flips_gets_them() -> None:
    """Holm over a long table, or a small alpha, needs a smaller p than 4,999 sign flips can give."""
    found = verdict(replace(USED, alpha=0.0005), Truth(share=0.6, placebo=0.1))
    assert found.outcome == "supported", found
    assert found.p_adjusted < 0.0005


def test_a_placebo_that_carries_as_much_forbids_to_call_it_used() -> None:
    """The average placebo is far below, one draw is not: an effect must beat them all."""
    made = study(Truth(share=0.6, placebo=0.1), 5)
    for run in made.runs:
        run.effects[run.steps[-1]].placebo["stream"][:, 3] = 1.2 * run.effects[run.steps[-1]].gained["stream"]
    found = judge([USED], made)[0]
    assert found.outcome == "inconclusive"
    assert "1 of 19 placebos carry as much" in found.reason


def test_a_word_that_the_exchange_leaves_standing_is_not_shown_to_be_unused() -> None:
    assert verdict(WORDS, Truth(left=0.0)).outcome == "falsified"
    found = verdict(WORDS, Truth(left=0.6))
    assert found.outcome == "inconclusive"
    assert "leaves 60.0 % on the own words" in found.reason


def test_the_operation_is_carried_where_the_own_operands_decide_the_answer() -> None:
    assert verdict(OPERATION, Truth(operation=0.5, answer=0.2)).outcome == "supported"
    assert verdict(OPERATION, Truth(operation=0.2, answer=0.9)).outcome == "falsified"
    assert verdict(OPERATION, Truth(operation=0.5, answer=0.5, noise=0.02)).outcome == "falsified"


def test_pairs_in_which_the_model_says_one_thing_weigh_nothing_and_too_few_others_decide_nothing() -> None:
    found = verdict(USED, Truth(share=0.6, same=0.4))
    assert found.outcome == "supported"
    assert found.estimate == pytest.approx(0.6, abs=0.05)
    found = verdict(USED, Truth(share=0.6, same=0.9))
    assert found.outcome == "inconclusive"
    assert "at least 20 are needed" in found.reason


def test_what_the_third_prompt_says_must_be_another_thing_too() -> None:
    made = study(Truth(operation=0.5), 5)
    for run in made.runs:
        run.effects[run.steps[-1]].crossed_whole[:, 1] = 0.0
    found = judge([OPERATION], made)[0]
    assert found.outcome == "inconclusive"
    assert "in 0 pairs of the class" in found.reason


def test_the_base_model_is_judged_at_step_0() -> None:
    found = verdict(replace(USED, arm="base"), Truth(share=0.6, all_or_nothing=0))
    assert found.outcome == "supported"
    assert found.step == 0


def test_an_arm_in_which_nothing_was_exchanged_has_no_verdict() -> None:
    made = study(Truth(share=0.6))
    bare = replace(made, runs=tuple(replace(run, effects={}) for run in made.runs))
    found = judge([USED], bare)[0]
    assert found.outcome == "inconclusive"
    assert "no intervention was made" in found.reason


def test_a_stream_that_cannot_be_changed_is_told() -> None:
    made = study(Truth(share=0.6), 5)
    refused = [
        replace(
            run, effects={s: replace(e, refused="tiny: it has two streams") for s, e in run.effects.items()}
        )
        for run in made.runs
    ]
    found = judge([USED], replace(made, runs=tuple(refused)))[0]
    assert found.outcome == "inconclusive"
    assert "tiny: it has two streams" in found.reason


def test_damage_alone_is_never_called_used() -> None:
    """15 studies with heavy tails and seeds that differ here, 400 below."""
    truth = Truth(share=0.2, placebo=0.2, noise=0.15, heavy=True, seed_sd=0.02)
    outcomes = [v.outcome for k in range(5) for v in judge([USED], study(truth, 3, draw=k))]
    assert "supported" not in outcomes


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("share", [0.0, 0.2], ids=["nothing", "damage alone"])
def test_four_hundred_studies_without_an_effect(heavy: bool, share: float) -> None:
    truth = Truth(share=share, placebo=share, noise=0.15, heavy=heavy, seed_sd=0.02)
    outcomes = [v.outcome for k in range(134) for v in judge([USED], study(truth, 3, draw=k))]
    assert len(outcomes) >= 400
    assert outcomes.count("supported") <= 0.05 * len(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
def test_a_true_share_of_a_quarter_is_found_in_nine_of_ten_studies(heavy: bool) -> None:
    truth = Truth(share=0.25, noise=0.15, heavy=heavy, seed_sd=0.02)
    outcomes = [v.outcome for k in range(134) for v in judge([USED], study(truth, 3, draw=k))]
    assert outcomes.count("supported") >= 0.9 * len(outcomes)
