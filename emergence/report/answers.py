"""The front of the page: an answer to each claim in one sentence, and a matrix of claims and classes.

In: verdicts, in the table's order. Out: text. Nothing is decided here, and no number is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..verdicts.verdict import Outcome, Verdict

_SAID: dict[Outcome, str] = {"supported": "holds", "falsified": "is refuted", "inconclusive": "is open"}


@dataclass(frozen=True)
class Answer:
    """One claim with what became of it."""

    prediction: str
    claim: str
    control: bool
    sentence: str
    verdicts: tuple[Verdict, ...]
    """One a class, in the table's order."""


def answers(verdicts: Sequence[Verdict]) -> list[Answer]:
    """An answer for each claim; those that are controls come last."""
    ordered = sorted(verdicts, key=lambda v: v.control)
    found = []
    for (prediction, claim, control), group in groupby(
        ordered, key=lambda v: (v.prediction, v.claim, v.control)
    ):
        rows = tuple(group)
        found.append(Answer(prediction, claim, control, _sentence(rows), rows))
    return found


def _sentence(rows: Sequence[Verdict]) -> str:
    """`Holds for add and subtract at L26–L28, first detected at step 150; is open for multiply: ...`."""
    parts = []
    for outcome, said in _SAID.items():
        if some := [v for v in rows if v.outcome == outcome]:
            whom = "every class" if len(some) == len(rows) else _and([v.cls for v in some])
            parts.append(f"{said} for {whom}{_place(some) if outcome == 'supported' else ''}{_why(some)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _place(some: Sequence[Verdict]) -> str:
    """Where it is and since when; of a claim that there is nothing, neither is said."""
    if any(v.onset is None for v in some):
        return ""
    layers = sorted(v.layer for v in some if v.layer is not None)
    steps = sorted(v.onset[1] for v in some if v.onset is not None)
    at = f"L{layers[0]}" if layers[0] == layers[-1] else f"L{layers[0]}–L{layers[-1]}"
    first = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
    return f" at {at}, first detected at step {first}"


def _why(some: Sequence[Verdict]) -> str:
    """What keeps it open, whatever the numbers are, where that is the same kind of thing for all."""
    if some[0].outcome != "inconclusive":
        return ""
    blocked = [v.reason.partition(". Here ") for v in some]
    reasons = list(dict.fromkeys(why.partition(":")[0] for why, here, _ in blocked if here))
    return f" ({reasons[0]})" if len(reasons) == 1 and all(here for _, here, _ in blocked) else ""


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
