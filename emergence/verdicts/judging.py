"""`Prediction` + evidence to `Verdict`: the only place where a number becomes a decision.

In: the pre-registered predictions and a `Study`. Out: one `Verdict` per prediction and class. Two passes,
since Holm's adjustment needs every p-value: first each prediction is drafted, then all are decided together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from ..analysis import evidence, permutation
from ..errors import BrokenExperiment
from ..readings.readings import Study
from . import reach
from .measurements import Desk, Draft
from .predictions import Prediction, Table, check, load_predictions

__all__ = [
    "Outcome",
    "Prediction",
    "Table",
    "Verdict",
    "check",
    "failed_controls",
    "is_share",
    "judge",
    "load_predictions",
    "require_controls",
]

Outcome = Literal["supported", "falsified", "inconclusive"]


@dataclass(frozen=True, repr=False)
class Verdict:
    """What became of one prediction, for one class."""

    prediction: str
    cls: str
    claim: str
    outcome: Outcome
    reason: str
    """One sentence with the numbers that decided."""
    arm: str
    style: str
    family: str
    band: str
    statistic: str
    """What `estimate` is: `own-class mass`, `trend per 100 steps`, `AUROC`, ..."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    threshold: float | None = None
    baseline: float | None = None
    """The same statistic in the base model; of a growth, an AUROC or a selectivity: where there is none."""
    p: float | None = None
    p_adjusted: float | None = None
    layer: int | None = None
    step: int | None = None
    onset: tuple[int | None, int] | None = None
    """(previous, this]: the checkpoint interval in which the classifier emerged."""
    n_prompts: int = 0
    n_seeds: int = 0
    control: bool = False
    token_ids: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """Arrays as lists, for the report: mass by layer, confusion table, probe accuracies, ..."""

    @property
    def supported(self) -> bool:
        """Whether the claim holds, by the evidence."""
        return self.outcome == "supported"

    def as_row(self) -> dict[str, Any]:
        """Every field by its name, `cls` under the name that files and tables have for it: `class`."""
        return {"class" if k == "cls" else k: v for k, v in dataclasses.asdict(self).items()}

    def __repr__(self) -> str:
        return f"<{self.prediction}[{self.cls}] {self.outcome}>"

    def __str__(self) -> str:
        place = "" if self.layer is None else f" (L{self.layer}, step {self.step})"
        runs = f"{self.n_prompts} prompts a class judged, {self.n_seeds} seed{'s' * (self.n_seeds != 1)}"
        return (
            f"{self.prediction}[{self.cls}] {self.outcome}: {self.claim}\n"
            f"  {self.reason}\n"
            f"  {self.statistic}{place}, {self.arm}, {self.style} style, {runs}"
        )


def is_share(statistic: str) -> bool:
    """Whether a statistic is read as a percentage: masses and their growth are, AUROC is not."""
    return any(word in statistic.lower() for word in _SHARES)


_SHARES = ("mass", "accuracy", "share", "fraction", "probability")
_SHARED = {f.name for f in dataclasses.fields(Verdict)} & {f.name for f in dataclasses.fields(Draft)}


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
    evidence.disjoint(first.prompts)
    evidence.separate(first.token_sets)
    with threadpool_limits(limits=1):  # the products are small: threads would wait for one another
        desk = Desk(study, reach.permutations(predictions, len(first.classes)))
        drafts = [desk.draft(p, cls) for p in predictions for cls in first.classes]
    rows = [p for p in predictions for _ in first.classes]
    classes = [cls for _ in predictions for cls in first.classes]
    verdicts = list(map(_decide, rows, classes, drafts, _adjusted(rows, drafts)))
    by_key = {(v.prediction, v.cls): v for v in verdicts}
    return [_with_premise(v, p, by_key) for v, p in zip(verdicts, rows, strict=True)]


def failed_controls(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Controls that are falsified: something was found where nothing can be."""
    return [v for v in verdicts if v.control and v.outcome == "falsified"]


def require_controls(verdicts: Sequence[Verdict]) -> None:
    """Refuse verdicts that depend on a failed control.

    Raises
    ------
    BrokenExperiment
        Names every control that failed, and why.
    """
    failed = failed_controls(verdicts)
    if failed:
        named = "; ".join(f"control {v.prediction}[{v.cls}] failed: {v.reason}" for v in failed)
        raise BrokenExperiment(f"{named}. No verdict of this run counts until the cause is found")


def _adjusted(predictions: Sequence[Prediction], drafts: Sequence[Draft]) -> list[float | None]:
    """Holm over the confirmatory family; a control's p stays as it is, which is stricter."""
    family = [
        i
        for i, (p, d) in enumerate(zip(predictions, drafts, strict=True))
        if d.p is not None and not p.control
    ]
    out = [d.p for d in drafts]
    for i, p in zip(family, permutation.holm([drafts[i].p or 0.0 for i in family]), strict=True):
        out[i] = float(p)
    return out


def _decide(p: Prediction, cls: str, d: Draft, adjusted: float | None) -> Verdict:
    significant = adjusted is not None and adjusted < p.alpha
    absence = p.test == "no classifier"
    outcome: Outcome = "inconclusive"
    reason = d.missing
    if d.blocked:
        reason = d.blocked
    elif d.holds and significant:
        outcome, reason = ("falsified" if absence else "supported"), f"{d.found}; {_p(adjusted, p)}"
    elif d.refuted:
        outcome = "supported" if absence else "falsified"
    elif d.holds:
        reason = f"{d.found}; {_p(adjusted, p)}, not below {p.alpha:g}"
    shared = {f.name: getattr(d, f.name) for f in dataclasses.fields(Draft) if f.name in _SHARED}
    return Verdict(
        prediction=p.id, cls=cls, claim=p.claim, outcome=outcome, reason=reason, arm=p.arm,
        style=p.style, band=p.band, p_adjusted=adjusted, control=p.control, **shared,
    )  # fmt: skip


def _p(p: float | None, prediction: Prediction) -> str:
    shown = "no p" if p is None else f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
    return shown if prediction.control else f"{shown} after Holm"


def _with_premise(v: Verdict, p: Prediction, all_: dict[tuple[str, str], Verdict]) -> Verdict:
    premise = all_.get((p.premise, v.cls))
    if premise is None or premise.outcome == "supported" or v.outcome == "inconclusive":
        return v
    reason = f"its premise {p.premise} is {premise.outcome}. {v.reason}"
    return dataclasses.replace(v, outcome="inconclusive", reason=reason)
