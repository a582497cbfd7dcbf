"""A verdict is one flat row to whoever reads it, and a failed control takes the meaning of all of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import pytest
from judged import judge
from synthetic import Plant

from emergence.errors import BrokenExperiment
from emergence.verdicts import Verdict, require_controls, verdict
from emergence.verdicts.verdict import Effect, failed_controls, is_share


def test_a_failed_control_makes_every_verdict_an_error():
    found = list(
        judge(["E1", "C1", "C2"], Plant("shuffled", "answer", 5), Plant("sft", "random_words", 5)).values()
    )
    assert {v.prediction for v in failed_controls(found)} == {"C1", "C2"}
    with pytest.raises(BrokenExperiment, match=r"control C1\[add\] failed"):
        require_controls(found)


def test_controls_that_hold_stop_nothing():
    found = list(judge(["C1", "C2"], Plant("shuffled", "answer", 5, 0.99, selective=False)).values())
    assert failed_controls(found) == []
    require_controls(found)


EFFECT = Effect(
    "own-class mass", "words", 0.5, 0.4, 0.6, 0.1, 0.01, 2e-4, 4e-4, layer=5, step=100, onset=(None, 100),
    n_prompts=30, n_seeds=3, token_ids=(1, 2), details={"kind": "classifier", "strength": {"low": [0.4]}},
)  # fmt: skip
VERDICT = Verdict("E2", "add", "it emerges", "supported", "L5 holds it", "sft", "symbolic", "middle", EFFECT)


def test_every_number_of_the_effect_is_the_verdicts_own():
    for field in dataclasses.fields(Effect):
        assert getattr(VERDICT, field.name) is getattr(EFFECT, field.name)


def test_a_name_that_a_verdict_has_not_is_told_with_those_that_it_has():
    with pytest.raises(
        AttributeError, match=r"a verdict has no 'estimat'; it has prediction, cls, .*estimate"
    ):
        VERDICT.estimat  # noqa: B018


COLUMNS = (
    "prediction class claim outcome reason arm style family band statistic estimate low high threshold "
    "baseline p p_adjusted layer step onset n_prompts n_seeds control token_ids details stands "
    "depends deviated"
)


def test_a_row_is_flat_and_has_the_columns_that_files_have():
    row = VERDICT.as_row()
    assert sorted(row) == sorted(COLUMNS.split())
    assert (row["class"], row["estimate"], row["onset"], row["control"]) == ("add", 0.5, (None, 100), False)


@pytest.mark.parametrize("read", [dict, lambda row: json.loads(json.dumps(row))])
def test_a_verdict_is_read_back_from_its_row(read):
    assert Verdict.from_row(read(VERDICT.as_row())) == VERDICT
    bare = Verdict(
        "E2", "add", "it emerges", "inconclusive", "no", "sft", "own", "middle", Effect("AUROC", "answer")
    )
    assert Verdict.from_row(read(bare.as_row())) == bare


def test_columns_of_another_version_are_left_out_when_a_row_is_read():
    assert Verdict.from_row(VERDICT.as_row() | {"dose": 0.3}) == VERDICT


def test_a_verdict_can_be_copied_and_sent_to_another_process():
    assert copy.deepcopy(VERDICT) == pickle.loads(pickle.dumps(VERDICT)) == VERDICT


def test_a_verdict_is_told_in_three_lines():
    assert str(VERDICT).splitlines() == [
        "E2[add] supported: it emerges",
        "  L5 holds it",
        "  own-class mass (L5, step 100), sft, symbolic style, 30 prompts a class judged, 3 seeds",
    ]
    nowhere = dataclasses.replace(VERDICT, effect=Effect("AUROC", "answer", n_prompts=4, n_seeds=1))
    assert str(nowhere).splitlines()[2] == "  AUROC, sft, symbolic style, 4 prompts a class judged, 1 seed"
    assert repr(VERDICT) == "<E2[add] supported>"


@pytest.mark.parametrize(
    ("statistic", "share"),
    [
        ("own-class mass", True),
        ("growth of mass per 100 steps", True),
        ("AUROC", False),
        ("selectivity", False),
    ],
)
def test_masses_are_read_as_percentages_and_nothing_else_is(statistic, share):
    assert is_share(statistic) == share


@pytest.mark.parametrize(
    ("outcome", "control", "failed"),
    [
        ("falsified", True, True),
        ("inconclusive", True, False),
        ("supported", True, False),
        ("falsified", False, False),
    ],
)
def test_a_control_fails_only_where_it_is_falsified(outcome, control, failed):
    verdict = dataclasses.replace(VERDICT, outcome=outcome, control=control)
    assert failed_controls([VERDICT, verdict]) == [verdict] * failed


def test_a_control_that_shows_nothing_either_way_is_no_failure_and_is_told():
    undecided = dataclasses.replace(VERDICT, prediction="C1", control=True, outcome="inconclusive")
    require_controls([undecided])
    assert failed_controls([undecided]) == []
    assert verdict.undecided_controls([undecided, VERDICT]) == [undecided]


def test_a_table_that_was_changed_after_training_is_said_with_the_verdict():
    late = dataclasses.replace(VERDICT, deviated="predictions.py was changed after training began")
    assert "DEVIATED: predictions.py was changed after training began" in str(late)
    assert "DEVIATED" not in str(VERDICT)
