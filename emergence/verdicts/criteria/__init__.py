"""How a claim is judged, one module a criterion; each has one public function, `assess`.

A criterion reads `Measurements` and gives an `Assessment` of one prediction, class and family. It decides no
outcome: p-values are adjusted for one another first, in `judging`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from . import accuracy, causal, classifier, contrast, correctness, growth, probe, replication
from .sentences import blocked

Criterion = Callable[[Prediction, str, str, Measurements], Assessment]

CRITERIA: dict[str, Criterion] = {
    "classifier": classifier.assess,
    "no classifier": classifier.assess,
    "growth": growth.assess,
    "predicts correctness": correctness.assess,
    "replication": replication.assess,
    "probe": probe.assess,
    "no probe": probe.assess,
    "used": causal.assess,
    "carries the operation": causal.assess,
    "contrast": contrast.assess,
    "accuracy gain": accuracy.assess,
    "no accuracy gain": accuracy.assess,
}
"""By the name that `Prediction.test` has for it."""


def apply(p: Prediction, cls: str, measured: Measurements) -> Assessment:
    """What the criterion of a prediction makes of one class.

    Raises
    ------
    UsageError
        The arm was not run, the style was not read, or there is no such band.
    """
    criterion = CRITERIA[p.test]
    assessments = [criterion(p, cls, family, measured) for family in p.families]
    assessed = assessments[0] if len(assessments) == 1 else _better(assessments)
    if unlearned := measured.unlearned(p, cls):
        return replace(assessed, blocked=blocked(unlearned, assessed.when_there), unmeasured=True)
    return assessed


def _better(assessments: Sequence[Assessment]) -> Assessment:
    """Of a claim about one family or another, the better one speaks, and its p pays for the choice.

    To be negligible both must be: of these, the one speaks of which that is least sure.
    """

    def goodness(a: Assessment) -> tuple[bool, bool, float, float]:
        p = 1.0 if a.effect.p is None else a.effect.p
        return a.holds and not a.not_there, a.holds, -p, a.effect.estimate or 0.0

    best = max(assessments, key=goodness)
    least = max(assessments, key=lambda a: 2.0 if a.gone is None or a.gone.p is None else a.gone.p)
    sentences = {a.effect.family: a.otherwise or a.when_there for a in assessments}
    return replace(
        best,
        effect=replace(
            best.effect,
            p=None if best.effect.p is None else min(1.0, best.effect.p * len(assessments)),
            details=best.effect.details | {"families": sentences},
        ),
        gone=least.gone,
        needs=best.needs if best.holds else least.needs,
        not_gone=next((a.not_gone for a in assessments if a.not_gone), ""),
        when_gone="; ".join(f"{a.effect.family}: {a.when_gone}" for a in assessments),
        otherwise="; ".join(f"{f}: {s}" for f, s in sentences.items()),
    )
