"""The task is what the config asks for, and the prompts to show are checked."""

import re
from collections import Counter

import pytest
from configs import BASE, parameters, refused
from places import ROOT
from wrong_configs import PROMPTS

from emergence.config import loading as config

OURS = ROOT / "hypotheses" / "classifier_emergence" / "config.yaml"


def test_always_giving_the_commonest_first_digit_is_no_success_with_the_shipped_operands():
    problems = config.load(OURS).task.split().train
    for operation in config.load(OURS).task.classes:
        digits = Counter(p.answer[0] for p in problems if p.cls == operation)
        assert max(digits.values()) / digits.total() < 0.3


@pytest.mark.parametrize("case", PROMPTS)
def test_a_wrong_prompt_is_told(case):
    written, said = PROMPTS[case]
    (line,) = refused(BASE + f"  test_prompts:\n    add: [{written}]\n")
    assert line.startswith("config.yaml:18: parameters.test_prompts.add")
    assert re.search(said, line), line


def test_a_prompt_in_a_style_that_is_not_read_is_told():
    text = BASE + '  read_styles: [symbolic]\n  test_prompts:\n    add: ["What is 7 plus 8? "]\n'
    assert "is worded, which read_styles leaves out" in refused(text)[0]


def test_a_prompt_that_is_spaced_otherwise_is_noticed():
    experiment = config.parse(BASE + '  test_prompts:\n    add: ["7+8="]\n')
    assert experiment.test_prompts[0].text == "7+8="
    assert "'7+8=' is read as it is; what is trained on is '7 + 8 = '" in experiment.notices[-1]


def test_test_prompts_are_neither_trained_on_nor_tested():
    experiment = config.parse(BASE + '  test_prompts:\n    add: ["7 + 8 = ", "What is 9 plus 3? "]\n')
    splits = experiment.task.split([t.item for t in experiment.test_prompts])
    keys = {p.key for p in splits.train + splits.valid + splits.test}
    assert not keys & {"7 + 8", "3 + 9"}


def test_operands_a_and_b_are_asked_under_every_class():
    experiment = config.parse(parameters("operands: {a: [10, 99], b: [2, 9]}"))
    assert experiment.task.operands == {"a": (10, 99), "b": (2, 9)}
    splits = experiment.task.split()
    asked = {cls: {p.numbers for p in splits.test if p.cls == cls} for cls in experiment.task.classes}
    assert asked["add"] == asked["subtract"] == asked["multiply"]
    assert experiment.hash != config.parse(parameters("operands: {a: [10, 98], b: [2, 9]}")).hash
    assert config.parse(parameters("operands: {b: [2, 9]}")).task.operands == {"a": (2, 99), "b": (2, 9)}


def test_a_shown_prompt_is_read_in_a_form_that_is_read():
    prompts = '  test_prompts:\n    multiply: ["7*8="]\n'
    [shown] = config.parse(BASE + prompts).test_prompts
    assert shown.style == "symbolic"
    [shown] = config.parse(BASE + "  read_styles: [symbolic, tight]\n" + prompts).test_prompts
    assert (shown.style, shown.note) == ("tight", "")
