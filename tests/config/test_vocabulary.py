"""Vocabulary is the text that is written."""

import pytest
from configs import BASE, edited

from emergence.config import loading as config
from emergence.config import vocabulary
from emergence.config.problems import Problems


def test_vocabulary_and_prompts_are_the_text_that_is_written():
    text = edited('add: [add, plus, "+"]', "add: [no, true, null, 1e5, 12:30, plus, +]")
    assert config.parse(text, {"training.training_methods.classified.enabled": "no"}).vocabulary["add"] == (
        "no", "true", "null", "1e5", "12:30", "plus", "+",
    )  # fmt: skip
    prompts = "  test_prompts:\n    add: [{prompt: 7 + 8 =, expected: 15}]\n"
    assert config.parse(BASE + prompts).test_prompts[0].item.answer == "15"


@pytest.mark.parametrize(
    ("words", "kept", "wrong", "noticed"),
    [
        (["plus", "+"], ("plus", "+"), 0, 0),
        (["plus", "68", "٣", "²"], ("plus",), 0, 3),
        (["plus", "plus"], ("plus",), 1, 0),
        (["plus", " sum"], ("plus",), 1, 0),
        (["plus", "a\x07"], ("plus",), 1, 0),
        (["plus", "Minus"], ("plus", "Minus"), 1, 0),
        (["plus", "-"], ("plus", "-"), 1, 0),
        (["+", "12"], ("+",), 1, 1),
    ],
)
def test_a_class_keeps_its_sound_words(words, kept, wrong, noticed):
    problems, glyphs = Problems("config.yaml"), {"+": "add", "-": "subtract"}
    written = {"subtract": ["minus"], "add": words, "divide": ["by"]}
    found = vocabulary.resolve(written, ("subtract", "add"), glyphs, problems)
    assert found == {"subtract": ("minus",), "add": kept}
    assert (len(problems.wrong), len(problems.notices)) == (wrong, noticed)
