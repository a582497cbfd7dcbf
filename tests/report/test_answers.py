"""The sentences at the front of the page say what the verdicts say."""

from __future__ import annotations

import pytest
import report_case as case

from emergence.report.answers import answers
from emergence.verdicts import Verdict

PLACED = {"layer": 26, "step": 300, "onset": (100, 150)}


def rows(*outcomes: str, **fields: object) -> list[Verdict]:
    classes = ("add", "subtract", "multiply")
    return [
        case.verdict("E1", outcome, **{"class": cls}, **fields)
        for cls, outcome in zip(classes, outcomes, strict=False)
    ]


@pytest.mark.parametrize(
    ("outcomes", "fields", "sentence"),
    [
        (("supported",) * 3, PLACED, "Holds for every class at L26, first detected at step 150."),
        (("supported",) * 3, {"onset": None}, "Holds for every class."),
        (("falsified",) * 2, {}, "Is refuted for every class."),
        (
            ("supported", "falsified", "inconclusive"),
            PLACED
            | {"reason": "the task was not learned: 23% of whole answers are right. Here at L3 nothing"},
            "Holds for add at L26, first detected at step 150; is refuted for subtract; is open for multiply "
            "(the task was not learned).",
        ),
        (
            ("supported", "supported", "inconclusive"),
            PLACED
            | {"reason": "no classifier: a part of it is below 5 %. If there is as little as it looks, ..."},
            "Holds for add and subtract at L26, first detected at step 150; is open for multiply.",
        ),
    ],
)
def test_a_claim_is_answered_in_one_sentence(
    outcomes: tuple[str, ...], fields: dict[str, object], sentence: str
) -> None:
    (answer,) = answers(rows(*outcomes, **fields))
    assert answer.sentence == sentence


def test_layers_and_steps_that_differ_are_a_range() -> None:
    two = [
        case.verdict("E1", "supported", **{"class": cls}, layer=layer, onset=(0, step))
        for cls, layer, step in (("add", 28, 200), ("multiply", 26, 100))
    ]
    assert answers(two)[0].sentence == "Holds for every class at L26–L28, first detected at step 100 to 200."


def test_controls_come_last_and_no_verdict_is_lost() -> None:
    found = answers(case.verdicts())
    assert [a.control for a in found] == sorted(a.control for a in found)
    assert sum(len(a.verdicts) for a in found) == len(case.verdicts())
