"""A claim about training is judged where the model, left to write, writes the answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import LARGE, ROW, SMALL
from synthetic import Plant, study

from emergence.verdicts import judging

GATED = dataclasses.replace(ROW["E1"], min_accuracy=0.9)


def judge(share, claim=GATED):
    """One verdict for `add`, of a world with a clear classifier where this share of it is written right."""
    world = study(Plant("sft", "answer", 5, 0.8), **SMALL | LARGE)
    runs = []
    for run in world.runs:
        exact = np.full(run.exact.shape, np.nan, np.float32)
        for cls in run.classes:
            mine = np.flatnonzero([p.cls == cls for p in run.prompts])
            exact[-1, mine] = np.arange(len(mine)) < share * len(mine)
        runs.append(dataclasses.replace(run, exact=exact))
    return judging.judge([claim], type(world)(tuple(runs)))[0]


@pytest.mark.parametrize(
    ("share", "outcome"), [(1.0, "supported"), (0.95, "supported"), (0.5, "inconclusive")]
)
def test_below_the_declared_share_nothing_is_decided(share, outcome):
    verdict = judge(share)
    assert verdict.outcome == outcome
    said = "the task was not learned: 50% of whole answers are right, 90% are needed. Here at L5"
    assert verdict.reason.startswith(said) == (outcome == "inconclusive")


def test_it_is_asked_for_by_the_claim_alone_and_never_of_the_base_model():
    assert judge(0.0, ROW["E1"]).outcome == "supported"
    base = dataclasses.replace(ROW["B2"], min_accuracy=0.9)
    assert "learned" not in judge(0.0, base).reason


def test_the_share_is_that_of_the_class_and_of_all_seeds():
    world = study(Plant("sft", "answer", 5, 0.8), **SMALL | LARGE)
    runs = []
    for run in world.runs:
        mine = np.array([p.cls == "add" for p in run.prompts])
        exact = np.where(mine, 1.0, 0.0).astype(np.float32)
        runs.append(dataclasses.replace(run, exact=np.stack([exact] * len(run.steps))))
    runs[0] = dataclasses.replace(
        runs[0], exact=np.zeros_like(runs[0].exact)
    )  # one seed of five learned nothing
    verdicts = {v.cls: v for v in judging.judge([GATED], type(world)(tuple(runs)))}
    assert all("80% of whole answers" in v.reason for v in verdicts.values() if v.cls == "add")
    assert all("0% of whole answers" in v.reason for v in verdicts.values() if v.cls != "add")


def test_a_model_that_was_asked_in_no_trained_style_is_said_so():
    world = study(Plant("sft", "answer", 5, 0.8), **SMALL | LARGE)
    runs = [dataclasses.replace(r, exact=np.full_like(r.exact, np.nan)) for r in world.runs]
    reason = judging.judge([GATED], type(world)(tuple(runs)))[0].reason
    assert reason.startswith("the model was left to answer in no style that it was trained on")
