"""Predictions and a study to verdicts: the only place where a number becomes a decision.

In: the pre-registered predictions and a `Study`. Out: one `Verdict` per prediction and class. Two passes,
since Holm's adjustment needs every p-value: first each prediction is assessed by its criterion, then all are
decided together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from threadpoolctl import threadpool_limits

from ..analysis import permutation
from ..readings import readings
from ..readings.readings import Study
from . import checking, criteria
from .measurements import Measurements
from .predictions import Prediction
from .verdict import Assessment, Outcome, Verdict


def judge(predictions: Sequence[Prediction], study: Study) -> list[Verdict]:
    """One verdict per (prediction, class), in the table's order. The same study gives the same verdicts.

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
    claims = [(p, cls) for p in predictions for cls in first.classes]
    with threadpool_limits(limits=1):  # the products are small: threads would wait for one another
        measured = Measurements(study, checking.permutations(predictions, len(first.classes)))
        assessments = [criteria.apply(p, cls, measured) for p, cls in claims]
    assessments = _adjusted([p for p, _ in claims], assessments)
    verdicts = [_decide(p, cls, a) for (p, cls), a in zip(claims, assessments, strict=True)]
    by_claim = {(v.prediction, v.cls): v for v in verdicts}
    return [_with_premise(v, p, by_claim) for v, (p, _) in zip(verdicts, claims, strict=True)]


def _adjusted(predictions: Sequence[Prediction], assessments: Sequence[Assessment]) -> list[Assessment]:
    """Holm over the confirmatory family; a control's p stays as it is, which is stricter."""
    p_values = [a.effect.p for a in assessments]
    family = [i for i, p in enumerate(predictions) if p_values[i] is not None and not p.control]
    adjusted = list(p_values)
    for i, after in zip(family, permutation.holm([p_values[i] or 0.0 for i in family]), strict=True):
        adjusted[i] = float(after)
    return [
        dataclasses.replace(a, effect=dataclasses.replace(a.effect, p_adjusted=p))
        for a, p in zip(assessments, adjusted, strict=True)
    ]


def _decide(p: Prediction, cls: str, a: Assessment) -> Verdict:
    outcome, reason = _outcome(p, a)
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
        effect=a.effect,
    )


def _outcome(p: Prediction, a: Assessment) -> tuple[Outcome, str]:
    """The decision and its sentence; a claim of absence is falsified by what supports any other."""
    there: Outcome = "supported"
    negligible: Outcome = "falsified"
    if p.test == "no classifier":
        there, negligible = negligible, there
    if a.blocked:
        return "inconclusive", a.blocked
    significant = a.effect.p_adjusted is not None and a.effect.p_adjusted < p.alpha
    if a.holds and significant:
        return there, f"{a.when_there}; {_p(p, a)}"
    if a.refuted:
        return negligible, a.otherwise
    if a.holds:
        return "inconclusive", f"{a.when_there}; {_p(p, a)}, not below {p.alpha:g}"
    return "inconclusive", a.otherwise


def _p(p: Prediction, a: Assessment) -> str:
    value = a.effect.p_adjusted
    shown = "no p" if value is None else f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"
    return shown if p.control else f"{shown} after Holm"


def _with_premise(v: Verdict, p: Prediction, by_claim: Mapping[tuple[str, str], Verdict]) -> Verdict:
    """A verdict means nothing where its premise is not supported: it is inconclusive, and says so."""
    premise = by_claim.get((p.premise, v.cls))
    if premise is None or premise.outcome == "supported" or v.outcome == "inconclusive":
        return v
    reason = f"its premise {p.premise} is {premise.outcome}. {v.reason}"
    return dataclasses.replace(v, outcome="inconclusive", reason=reason)
