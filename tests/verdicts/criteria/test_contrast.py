"""`contrast` and `accuracy gain`: what is there is found, what is not is shown, and never both."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from judged import SMALL
from synthetic import study

from emergence.readings.readings import Study
from emergence.verdicts import Prediction, judging

READ = {"style": "symbolic", "band": "intermediate"}
BOUNDS = {"threshold": 0.15, "negligible": 0.10}
CONTRAST = Prediction(
    "R", "other mass", "grpo", "answer", **READ, **BOUNDS, test="contrast", against=("sft",)
)
GAIN = Prediction(
    "G", "more right", "grpo", "answer", **READ, test="accuracy gain", threshold=0.05, negligible=0.02
)
STEPS = (0, 50, 100, 150)
RIGHT = {"sft": (0.05, 0.3, 0.6, 0.9), "grpo": (0.05, 0.3, 0.4, 0.5)}
"""Shares of whole answers right: the arms are equal between steps 50 and 100 of sft."""


def world(masses, right=RIGHT, seeds=5, per_class=160, sd=0.1, seed=0, switch=50) -> Study:
    """Arms whose own-answer mass at L5 is `masses[arm](share right)`, prompt by prompt with this spread.

    What is hard is so in both arms of a seed, as it is in real ones.
    """
    made = study(
        **SMALL | {"steps": STEPS, "per_class": per_class, "arms": dict.fromkeys(right, seeds)}, rng_seed=seed
    )
    n = len(made.runs[0].prompts)
    runs = []
    for run in made.runs:
        rng = np.random.default_rng([seed, run.seed, *run.arm.encode()])
        ease = np.random.default_rng([seed, run.seed]).random(n) + 0.02 * rng.standard_normal(n)
        answers = run.answers.copy()
        exact = (ease < np.array(right[run.arm])[:, None]).astype(np.float32)
        exact[0] = np.random.default_rng(seed).random(n) < right[run.arm][0]
        for t, share in enumerate(right[run.arm]):
            held = masses[run.arm](share) + sd * rng.standard_normal(n)
            answers[t, 5, np.arange(n), run.own_answer] = np.log(np.clip(held, 1e-6, 1))
        runs.append(dataclasses.replace(run, answers=answers, exact=exact, switch=switch))
    return Study(tuple(runs))


def judged(claim, *args, **settings):
    verdicts = judging.judge([claim], world(*args, **settings))
    return {v.outcome for v in verdicts}, verdicts


def like(share):
    return 0.5 * share


def more(by):
    return {"sft": like, "grpo": lambda share: 0.5 * share + by}


@pytest.mark.parametrize(("by", "holder"), [(0.25, "grpo holds"), (-0.22, "sft holds")])
def test_another_mass_at_equal_accuracy_is_found_in_either_direction(by, holder):
    outcomes, verdicts = judged(CONTRAST, more(by))
    assert outcomes == {"supported"}
    for v in verdicts:
        assert v.layer == 5
        assert v.low > 0.15
        assert v.estimate == pytest.approx(abs(by), abs=0.05)
        assert holder in v.reason
        assert re.search(r"both write (\d+%(, )?){5} of the answers exactly", v.reason)


def test_mass_that_follows_accuracy_is_equal_although_one_arm_ends_with_far_more():
    outcomes, verdicts = judged(CONTRAST, more(0.0))
    assert outcomes == {"falsified"}
    assert all("differs by less than 10.0 % at every layer" in v.reason for v in verdicts)
    at_the_end = world(more(0.0)).arm("sft")[0], world(more(0.0)).arm("grpo")[0]
    last = [np.exp(r.answers[-1, 5, np.arange(len(r.prompts)), r.own_answer]).mean() for r in at_the_end]
    assert last[0] - last[1] > 0.15


@pytest.mark.parametrize("by", [0.125, -0.125])
def test_between_the_two_bounds_nothing_is_decided_on_either_side(by):
    assert judged(CONTRAST, more(by))[0] == {"inconclusive"}


def test_few_seeds_or_prompts_show_no_equivalence():
    outcomes, verdicts = judged(CONTRAST, more(0.0), seeds=3)
    assert outcomes == {"inconclusive"}
    assert "5 are needed to speak of training" in verdicts[0].reason
    assert judged(CONTRAST, more(0.0), per_class=40)[0] == {"inconclusive"}


def test_without_checkpoints_at_equal_accuracy_it_is_said():
    right = RIGHT | {"sft": (0.7, 0.8, 0.85, 0.9)}
    outcomes, verdicts = judged(CONTRAST, more(0.25), right, seeds=2)
    assert outcomes == {"inconclusive"}
    assert "the one that ends higher has no two checkpoints on either side" in verdicts[0].reason


def test_answers_that_were_not_written_at_every_checkpoint_match_nothing():
    made = world(more(0.25), seeds=2)
    exact = [r.exact.copy() for r in made.runs]
    for x in exact:
        x[1:-1] = np.nan
    runs = [dataclasses.replace(r, exact=x) for r, x in zip(made.runs, exact, strict=True)]
    (verdict, *_) = judging.judge([CONTRAST], Study(tuple(runs)))
    assert verdict.outcome == "inconclusive"


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        ((0.05, 0.3, 0.4, 0.6), "supported"),
        ((0.05, 0.3, 0.3, 0.1), "falsified"),
        ((0.05, 0.3, 0.3, 0.335), "inconclusive"),
    ],
    ids=["more", "fewer", "hardly more"],
)
def test_a_gain_of_accuracy_is_counted_from_the_switch(last, outcome):
    outcomes, verdicts = judged(GAIN, more(0.0), {"sft": RIGHT["sft"], "grpo": last})
    assert outcomes == {outcome}
    assert all("at step 50" in v.reason and "at step 150" in v.reason for v in verdicts)
    right = world(more(0.0), {"sft": RIGHT["sft"], "grpo": last}).arm("grpo")
    of_add = [i for i, p in enumerate(right[0].prompts) if p.cls == "add"]
    gains = [r.exact[-1, of_add].mean() - r.exact[1, of_add].mean() for r in right]
    if outcome == "supported":
        assert verdicts[0].estimate == pytest.approx(np.mean(gains))


def test_a_control_that_loses_accuracy_has_shown_that_it_gains_none():
    control = dataclasses.replace(GAIN, test="no accuracy gain", control=True, threshold=0.1, negligible=0.05)
    fallen = {"sft": RIGHT["sft"], "grpo": (0.05, 0.4, 0.2, 0.1)}
    assert judged(control, more(0.0), fallen, seeds=1)[0] == {"supported"}
    risen = {"sft": RIGHT["sft"], "grpo": (0.05, 0.3, 0.5, 0.7)}
    assert judged(control, more(0.0), risen, seeds=1)[0] == {"falsified"}


def errors(by: float, studies: int) -> tuple[int, int, int]:
    """Of so many studies: how many call the arms different in some class, and how many equal."""
    there = gone = 0
    for seed in range(studies):
        found, _ = judged(CONTRAST, more(by), seed=seed)
        there, gone = there + ("supported" in found), gone + ("falsified" in found)
    return studies, there, gone


@pytest.mark.slow
@pytest.mark.parametrize("by", [0.10, 0.15])
def test_at_the_bounds_themselves_hardly_a_study_is_wrong(by):
    studies, there, gone = errors(by, 60)
    assert there <= 0.05 * studies + 3
    assert gone <= 0.05 * studies + 3
