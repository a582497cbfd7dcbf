"""What sizes alone give away of an answer's first token, where it is known by hand."""

from __future__ import annotations

from types import SimpleNamespace

import synthetic

from emergence.readings.controls import leading_digits


def plan(problems, firsts) -> SimpleNamespace:
    """As much of a plan as the table looks at: problems `(a, b, half)` of one class."""
    prompts = tuple(synthetic.prompt("add", a, b, "symbolic", half) for a, b, half in problems)
    return SimpleNamespace(prompts=prompts, words={"symbolic": {}}, classes=("add",), own_first=tuple(firsts))


def told(problems, firsts) -> str:
    (control,) = leading_digits(plan(problems, firsts))
    assert control.passed
    return control.reason


def test_an_answer_that_follows_from_leading_digits_is_known_and_one_that_does_not_is_half_known() -> None:
    sure = [(21, 3, 0), (25, 4, 1), (71, 3, 0), (75, 4, 1)]  # 2_ + _ begins with 2, 7_ + _ with 7
    assert told([(21, 3, 0), (21, 3, 1)], [4, 4]).endswith("add 100%")
    assert told([*sure, (21, 3, 1), (25, 4, 0)], [0, 0, 1, 1, 0, 0]).endswith("add 67%"), (
        "4 of 6 have a like one in the other half"
    )
    mixed = [(21, 3, 0), (22, 3, 0), (23, 3, 1), (24, 3, 1)]
    assert told(mixed, [0, 1, 0, 1]).endswith("add 50%")


def test_a_row_that_the_other_half_has_not_is_not_known() -> None:
    assert told([(21, 3, 0), (91, 3, 1)], [0, 0]).endswith("add 0%")


def test_prompts_without_operands_have_no_such_table() -> None:
    bare = plan([(21, 3, 0)], [0])
    bare.prompts = (bare.prompts[0].__class__("x", "add", "1", "own", 0, "x"),)
    bare.words = {"own": {}}
    assert leading_digits(bare) == ()
