"""Predictions and a study to verdicts: the only place where a number becomes a decision.

In: the pre-registered predictions and a `Study`. Out: one `Verdict` per prediction and class. Two passes,
since Holm's adjustment needs every p-value: first each prediction is assessed by its criterion, then all are
decided together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from threadpoolctl import threadpool_limits

from ..analysis import DEALS, intervals, permutation
from ..readings import readings
from ..readings.readings import Study
from . import checking, criteria
from .measurements import Measurements
from .predictions import Prediction
from .verdict import ENOUGH_DEALS, Assessment, Outcome, Verdict, undecided_controls


def judge(
    predictions: Sequence[Prediction], study: Study, only: Collection[str] | None = None, advise: bool = True
) -> list[Verdict]:
    """One verdict per (prediction, class), in the table's order. The same study gives the same verdicts.

    `only` are the ids of what can be judged already, where some arms are still to be trained. What is decided
    then stays decided: the p-values that are not known yet are taken to be 1. `advise=False` leaves out what
    would decide an undecided claim, which is simulated.

    Raises
    ------
    BrokenExperiment
        Halves overlap, glyphs are counted as words, a reading is NaN.
    UsageError
        A prediction names an arm that was not run, or a band or style that there is not.
    """
    first = study.runs[0]
    readings.disjoint(first.prompts)
    readings.separate(first.token_sets)
    rows = [p for p in predictions if only is None or p.id in only]
    unknown = checking.SIDES * len(first.classes) * sum(not p.control for p in predictions if p not in rows)
    claims = [(p, cls) for p in rows for cls in first.classes]
    with threadpool_limits(limits=1):  # the products are small: threads would wait for one another
        measured = Measurements(study, checking.permutations(predictions, len(first.classes)))
        assessments = [criteria.apply(p, cls, measured) for p, cls in claims]
    there, gone = _adjusted([p for p, _ in claims], assessments, unknown)
    tests = checking.SIDES * sum(not p.control for p, _ in claims) + unknown
    verdicts = [
        _decide(p, cls, a, tests if advise else None, *adjusted)
        for (p, cls), a, *adjusted in zip(claims, assessments, there, gone, strict=True)
    ]
    by_claim = {(v.prediction, v.cls): v for v in verdicts}
    verdicts = [_with_premise(v, p, by_claim) for v, (p, _) in zip(verdicts, claims, strict=True)]
    undecided = list(dict.fromkeys(v.prediction for v in undecided_controls(verdicts)))
    return [dataclasses.replace(v, depends=_depends(v, undecided)) for v in verdicts]


def _adjusted(
    predictions: Sequence[Prediction], assessments: Sequence[Assessment], unknown: int = 0
) -> tuple[list[float | None], list[float | None]]:
    """Holm over one family: for each claim, the p of "there" and the p of "negligible".

    A control's p stays as it is. That something is there is then found more easily, which is stricter; and
    that nothing is there is a statement about these runs alone.
    """
    # What is measured and not there has no p of its own; it counts as 1, for the family is fixed beforehand.
    there = [1.0 if a.effect.p is None and a.gone else a.effect.p for a in assessments]
    sides = [there, [a.gone.p if a.gone else None for a in assessments]]
    family = [
        (side, i)
        for side in (0, 1)
        for i, p in enumerate(predictions)
        if sides[side][i] is not None and not p.control
    ]
    after = permutation.holm([*(float(sides[side][i] or 0.0) for side, i in family), *[1.0] * unknown])
    for (side, i), value in zip(family, after, strict=False):
        sides[side][i] = float(value)
    return sides[0], sides[1]


def _decide(
    p: Prediction, cls: str, a: Assessment, tests: int | None, there: float | None, gone: float | None
) -> Verdict:
    outcome, reason, side = _outcome(p, a, there, gone)
    effect, adjusted = (a.gone, gone) if side == "gone" and a.gone else (a.effect, there)
    decided = outcome != "inconclusive"
    if tests is not None and not decided and a.needs and not (a.holds and a.not_there) and not a.unmeasured:
        sentence, sizes = a.needs(intervals.ALPHA / (1 if p.control else tests))
        reason = f"{reason}. {sentence[0].upper()}{sentence[1:]}"
        wanted = dataclasses.asdict(sizes) if sizes else None
        effect = dataclasses.replace(effect, details=effect.details | {"needs": wanted})
    return Verdict(
        prediction=p.id,
        cls=cls,
        claim=p.claim,
        outcome=outcome,
        reason=reason,
        arm=p.arm,
        style=p.style,
        band=p.band,
        control=p.control,
        effect=dataclasses.replace(effect, p_adjusted=adjusted),
        stands=(DEALS if side == "gone" else a.stands) if decided else None,
    )


def _outcome(
    p: Prediction, a: Assessment, there: float | None, gone: float | None
) -> tuple[Outcome, str, Literal["there", "gone"]]:
    """The decision, its sentence, and which side of the assessment decided.

    A claim of absence is falsified by what supports any other.
    """
    absence = p.absence
    side: Literal["there", "gone"] = "gone" if absence else "there"
    if a.blocked:
        return "inconclusive", a.blocked, side
    found = there is not None and there < p.alpha
    if a.holds and found and not a.not_there and a.stands >= ENOUGH_DEALS:
        outcome: Outcome = "falsified" if absence else "supported"
        return outcome, f"{a.when_there}; {_p(p, there)}{_deals(a)}", "there"
    lacking = gone is not None and gone < intervals.ALPHA
    if lacking and not a.not_gone:
        return ("supported" if absence else "falsified"), f"{a.when_gone}; {_p(p, gone)}", "gone"
    return "inconclusive", _undecided(p, a, there, gone), side


def _undecided(p: Prediction, a: Assessment, there: float | None, gone: float | None) -> str:
    """Why nothing is decided, by what came nearest to deciding."""
    if a.holds and a.not_there:
        return f"{a.not_there}. Here {a.when_there}"
    if a.holds and a.stands < ENOUGH_DEALS:
        return (
            f"it is there in {a.stands} of {DEALS} deals of the prompts into halves only, and {ENOUGH_DEALS} "
            f"are needed: {a.when_there}"
        )
    if a.holds:
        return f"{a.when_there}; {_p(p, there)}, not below {p.alpha:g}"
    if a.gone is not None and gone is not None and gone < intervals.ALPHA:
        return f"{a.not_gone}. Here {a.when_gone}"
    if a.gone is not None and a.gone.p is not None and a.gone.p < intervals.ALPHA:
        return f"{a.when_gone}; {_p(p, gone)}, not below {intervals.ALPHA:.2g}"
    return a.otherwise or a.when_there


def _p(p: Prediction, value: float | None) -> str:
    shown = "no p" if value is None else f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"
    return shown if p.control else f"{shown} after Holm"


def _deals(a: Assessment) -> str:
    return "" if a.stands == DEALS else f", in {a.stands} of {DEALS} deals of the prompts"


def _depends(v: Verdict, undecided: Sequence[str]) -> str:
    """Which controls are undecided, for a verdict that would fall with them."""
    if v.control or v.outcome == "inconclusive" or not undecided:
        return ""
    several = len(undecided) > 1
    return f"control{'s' * several} {' and '.join(undecided)} {'are' if several else 'is'} undecided"


def _with_premise(v: Verdict, p: Prediction, by_claim: Mapping[tuple[str, str], Verdict]) -> Verdict:
    """A verdict means nothing where its premise is not supported: it is inconclusive, and says so."""
    premise = by_claim.get((p.premise, v.cls))
    if premise is None or premise.outcome == "supported" or v.outcome == "inconclusive":
        return v
    reason = f"its premise {p.premise} is {premise.outcome}. {v.reason}"
    return dataclasses.replace(v, outcome="inconclusive", reason=reason, stands=None)
