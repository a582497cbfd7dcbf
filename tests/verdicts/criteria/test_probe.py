"""`probe`: a code in the streams supports it, and it means nothing where its premise fails."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from judged import ROW, SMALL, judge, outcomes
from synthetic import OPERATIONS, Plant, study

from emergence.verdicts import judging

FORMS = {"hidden": 24, "styles": ("symbolic", "worded")}


def test_decodability_means_nothing_where_its_premise_fails():
    found = judge(["B1", "B3"], Plant("base", "hidden", 4, 3.0), Plant("base", "words", 4, 0.5), **FORMS)
    assert outcomes(found, "B1") == {"falsified"}
    assert outcomes(found, "B3") == {"inconclusive"}
    assert "its premise B1 is falsified" in found["B3", "add"].reason


ALONE = dataclasses.replace(ROW["B3"], premise="")


def test_a_code_in_the_streams_is_selective_at_its_layer():
    found = judge([ALONE], Plant("base", "hidden", 4, 3.0), **FORMS)
    for cls in OPERATIONS:
        v = found["B3", cls]
        assert (v.outcome, v.layer, v.statistic, v.n_seeds) == ("supported", 4, "selectivity across forms", 1)
        at = v.details["layers"].index(4)
        assert v.details["selectivity"][at] == v.estimate
        assert np.sum(v.details["confusion"]) == 90


def test_streams_without_a_code_refute_it():
    found = judge([ALONE], **FORMS, per_class=200)
    assert outcomes(found, "B3") == {"falsified"}


def test_a_code_too_weak_to_be_selective_for_certain_is_no_refutation():
    """Layers without a code are negligible for certain, the layer with one is not."""
    found = judge([ALONE], Plant("base", "hidden", 4, 0.3), **FORMS, per_class=200)
    assert outcomes(found, "B3") == {"inconclusive"}
    for v in found.values():
        assert v.layer == 4
        assert v.high > 0.10
        assert v.low < v.threshold == 0.25


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"styles": ("symbolic",)},
            "symbolic is the only style that was read: every network has the class there, "
            "for the prompt says it; add a style to read_styles",
        ),
        ({"n_layers": 1}, "the model has no layer in band middle"),
        ({"per_class": 4}, "2 prompts of a class to train a probe on; at least 3 are needed"),
        ({"per_class": 8}, "4 prompts of the class to judge on"),
    ],
)
def test_too_little_to_fit_a_probe_on_is_inconclusive(settings, reason):
    found = judge([ALONE], **{"styles": ("symbolic", "worded")} | settings)
    assert {(v.outcome, v.reason) for v in found.values()} == {("inconclusive", reason)}


def test_prompts_without_operands_have_no_control_task():
    world = study(**SMALL)
    bare = tuple(dataclasses.replace(p, label=None, numbers=()) for p in world.runs[0].prompts)
    runs = tuple(dataclasses.replace(r, prompts=bare) for r in world.runs)
    # Without operands a prompt is its own problem, so the halves stay apart.
    for v in judging.judge([ALONE], type(world)(runs)):
        assert (v.outcome, v.threshold) == ("inconclusive", 0.25)
        assert "no control task to compare a probe with" in v.reason


CONTROL = dataclasses.replace(ALONE, id="C3", arm="permuted", test="no probe", negligible=0.2, control=True)


@pytest.mark.parametrize(("strength", "outcome"), [(0.0, "supported"), (3.0, "falsified")])
def test_permuted_weights_must_not_have_it(strength, outcome):
    """The streams of the permuted network decide, whatever the base model's hold."""
    with_code = study(Plant("base", "hidden", 4, 3.0), **SMALL | FORMS, per_class=200)
    permuted = study(Plant("base", "hidden", 4, strength), rng_seed=5, **SMALL | FORMS, per_class=200)
    runs = tuple(dataclasses.replace(run, hidden_permuted=permuted.runs[0].hidden) for run in with_code.runs)
    verdicts = judging.judge([ALONE, CONTROL], type(with_code)(runs))
    assert {v.outcome for v in verdicts if v.prediction == "B3"} == {"supported"}
    assert {v.outcome for v in verdicts if v.prediction == "C3"} == {outcome}
