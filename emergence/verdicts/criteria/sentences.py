"""How numbers are written in the reason of a verdict: `42.0 % [38.1, 46.2]`."""

from __future__ import annotations

from ...analysis import evidence
from ...analysis.intervals import Interval


def percent(x: float) -> str:
    """`42.0 %`; a negative zero is written as zero."""
    return f"{100 * float(x):z.1f} %"


def share(interval: Interval, cell: int, most: float = 1.0) -> str:
    """`42.0 % [38.1, 46.2]`: the estimate of one cell and its interval, no end beyond what a share can be."""
    ends = (min(most, max(-most, float(end[cell]))) for end in (interval.low, interval.high))
    low, high = (percent(end).removesuffix(" %") for end in ends)
    return f"{percent(interval.estimate[cell])} [{low}, {high}]"


def blocked(reason: str, sentence: str) -> str:
    """Why nothing is decided, and what the numbers are all the same; empty where nothing blocks."""
    return f"{reason}. Here {sentence}" if reason else ""


def part(name: str, family: str) -> str:
    """What a part of a classifier is, as a statistic is called: `own-class mass minus the largest other`."""
    own = "own-answer mass" if family == "answer" else "own-class mass"
    if name.startswith(evidence.AGAINST):
        return f"{own} minus the same on {name.removeprefix(evidence.AGAINST)} prompts"
    return {
        evidence.STRENGTH: own,
        evidence.MARGIN: f"{own} minus the largest other {'answer' if family == 'answer' else 'class'}",
        evidence.OTHERS: f"{own} minus other problems' answers",
        evidence.GAIN: f"gain of {own} over what else there is, since step 0",
        evidence.AGREES: "share of prompts where the own class has most mass",
    }[name]
