"""A claim about one family or another: the better one speaks, and pays for the choice."""

from __future__ import annotations

import dataclasses

from judged import LARGE, ROW, judge, outcomes
from synthetic import OPERATIONS, Plant


def test_a_word_classifier_in_the_middle_supports_e4_as_an_answer_classifier_does():
    for family in ("words", "answer"):
        found = judge(["E4"], Plant("sft", family, 5))
        assert {(v.outcome, v.family) for v in found.values()} == {("supported", family)}


def test_a_claim_about_one_family_or_another_is_refuted_only_where_both_are():
    """Words hold 8 % in the middle, neither enough nor little enough; answers hold nothing."""
    found = judge(["E4"], Plant("sft", "words", 4, 0.08), prompt_sd=0.05, **LARGE)
    assert outcomes(found, "E4") == {"inconclusive"}
    assert all("answer: not decided" in v.reason for v in found.values())
    neither = judge(["E4"], **LARGE)
    assert outcomes(neither, "E4") == {"falsified"}


def test_the_family_that_speaks_pays_for_the_choice_and_tells_of_both():
    either = judge(["E4"], Plant("sft", "words", 4))
    alone = judge([dataclasses.replace(ROW["E4"], family="words")], Plant("sft", "words", 4))
    for cls in OPERATIONS:
        v, words = either["E4", cls], alone["E4", cls]
        assert (v.p, v.estimate, v.low) == (2 * words.p, words.estimate, words.low)
        assert set(v.details["families"]) == {"words", "answer"}
        assert v.details["families"]["answer"].startswith("not decided")
