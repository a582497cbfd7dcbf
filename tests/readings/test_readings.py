"""Readings that would count one thing twice are refused."""

from __future__ import annotations

import pytest

from emergence.errors import BrokenExperiment
from emergence.readings import readings


def test_glyphs_counted_as_words_are_caught():
    sets = {"words": {"add": (1, 2), "multiply": (3,)}, "glyphs": {"add": (2,), "multiply": (9,)}}
    with pytest.raises(BrokenExperiment, match=r"glyphs are counted as words: token ids \[2\]"):
        readings.separate(sets)
    with pytest.raises(BrokenExperiment, match="a word of both add and multiply"):
        readings.separate({"words": {"add": (1,), "multiply": (1,)}})
