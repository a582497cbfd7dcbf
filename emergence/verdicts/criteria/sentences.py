"""How numbers are written in the reason of a verdict: `42.0 % [38.1, 46.2]`."""

from __future__ import annotations

from ...analysis.intervals import Interval


def percent(x: float) -> str:
    """`42.0 %`; a negative zero is written as zero."""
    return f"{round(100 * float(x), 1) + 0.0:.1f} %"


def share(interval: Interval, cell: int) -> str:
    """`42.0 % [38.1, 46.2]`: the estimate of one cell and its interval."""
    low, high = (percent(end[cell]).removesuffix(" %") for end in (interval.low, interval.high))
    return f"{percent(interval.estimate[cell])} [{low}, {high}]"


def blocked(reason: str, sentence: str) -> str:
    """Why nothing is decided, and what the numbers are all the same; empty where nothing blocks."""
    return f"{reason}. Here {sentence}" if reason else ""
