"""`Prediction` + evidence to `Verdict`: the only place where a number becomes a decision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["supported", "falsified", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What became of one prediction, for one operation."""

    prediction: str
    operation: str
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
    """The same statistic in the base model."""
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
