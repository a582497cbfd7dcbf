"""Every problem is told at once, each in one line with place, field, value and remedy."""

import re

import pytest
from configs import BASE, refused, training
from wrong_configs import WRONG

from emergence.config.problems import Problems
from emergence.errors import UsageError


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_told_with_its_line_value_and_remedy(case):
    text, said = WRONG[case]
    lines = refused(text)
    assert any(re.search(said, line) for line in lines), lines
    assert len(lines) <= 3


def test_a_thousand_problems_are_told_as_the_first_thirty_and_a_number():
    lines = refused(BASE + "name: again\n" * 1000)
    assert len(lines) == 31
    assert lines[:30] == [
        f"config.yaml:{line}: name: given twice, first in line 1; drop one" for line in range(17, 47)
    ]
    assert lines[-1] == "config.yaml: 970 more problems"


def test_all_problems_are_told_at_once_and_in_one_line_each():
    text = BASE.replace("max_steps: 100", "max_steps: -1").replace("sft: {method: sft}", "sft: {metod: sft}")
    text = text.replace("num_samples: 90", "num_samples: lots").replace("model: somewhere/model\n", "")
    assert len(refused(text)) == 4
    later = BASE.replace("[0, 50, 100]", "[0, 600]").replace("minus,", "plus,").replace("sft: {", "base: {")
    assert len(refused(later)) == 3


def test_a_place_is_the_nearest_that_is_known():
    problems = Problems("c.yaml", lines={(): 1, ("a",): 2, ("a", "b", 0): 4})
    problems.overridden["a", "c"] = "-p a.c"
    assert problems.place(("a", "b", 0, "x")) == "c.yaml:4"
    assert problems.place(("a", "b", 1)) == "c.yaml:2"
    assert problems.place(("a", "c", "d")) == "-p a.c"
    assert problems.place(("z",)) == "c.yaml:1"
    assert Problems("c.yaml").place(("a",)) == "c.yaml"


def test_what_is_said_is_raised_once_and_what_is_noted_is_not():
    problems = Problems("c.yaml", lines={("a",): 2})
    problems.note(("a",), "read as b")
    problems.refuse()
    problems.say(("a",), "wrong; write b")
    problems.say(("a",), "wrong; write b")
    problems.say(("a", 3), "also wrong", 7)
    with pytest.raises(UsageError) as error:
        problems.refuse()
    assert str(error.value) == "c.yaml:2: a: wrong; write b\nc.yaml:7: a[3]: also wrong"
    assert problems.notices == ["c.yaml:2: a: read as b"]


@pytest.mark.parametrize("written", [".nan", "0" * 50, "000"])
def test_a_number_that_is_refused_is_told_once(written):
    assert len(refused(training(f"learning_rate: {written}"))) == 1
