"""What a judgement consists of: `Effect` (the numbers), `Assessment` (what they would mean), `Verdict`.

A criterion gives an `Assessment` of one claim for one class. `judging` turns it into a `Verdict` once all
p-values are adjusted for one another. Nothing here computes a statistic; loads no array library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..analysis import DEALS
from ..errors import BrokenExperiment

if TYPE_CHECKING:
    from ..analysis.power import Needs

Outcome = Literal["supported", "falsified", "inconclusive"]
ENOUGH_DEALS = 36
"""Of the `DEALS` of the prompts into halves, those that a verdict must stand in."""


@dataclass(frozen=True)
class Effect:
    """The numbers of one claim for one class; None where there is none to give."""

    statistic: str
    """What `estimate` is, and so its unit: `own-class mass` in [0, 1], `AUROC`, `selectivity`, ..."""
    family: str
    """Whose mass it is; of a claim about `words or answer`, the one of the two that speaks."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    """95 % interval of the part that decided."""
    threshold: float | None = None
    """What the part that decided was held against: `low` must exceed it, or `high` stay below."""
    baseline: float | None = None
    """Own-class mass in the base model; of a growth, an AUROC or a selectivity: where there is none."""
    p: float | None = None
    p_adjusted: float | None = None
    """After Holm; of a control, `p` itself."""
    layer: int | None = None
    step: int | None = None
    onset: tuple[int | None, int] | None = None
    """(previous, this]: first detected at the second of these checkpoints, not at the first."""
    n_prompts: int = 0
    n_seeds: int = 0
    token_ids: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """Arrays as lists, for the report: mass by layer, confusion table, probe accuracies, ..."""


@dataclass(frozen=True)
class Assessment:
    """What a criterion makes of one claim for one class, before p-values are adjusted for one another.

    It has two sides, that the effect is there and that it is negligible; each with its numbers, its p and its
    sentence. A claim of absence is decided by the same two sides.
    """

    effect: Effect
    """The part that decides whether the effect is there, and the p of that."""
    gone: Effect | None = None
    """The part that decides whether it is negligible, and the p of that; None where nothing was measured."""
    holds: bool = False
    """The effect is there, but for the adjusted p."""
    stands: int = DEALS
    """In how many deals of the prompts `holds` comes out as it does."""
    blocked: str = ""
    """Why nothing can be decided, whatever the numbers: `speaks of this run only: ...`."""
    unmeasured: bool = False
    """It is blocked because of what the numbers are of, which more of the same would not mend."""
    not_there: str = ""
    """Why the effect cannot be said to be there, whatever the numbers: operands tell the class."""
    not_gone: str = ""
    """Why the effect cannot be said to be negligible: too few seeds for a claim about training."""
    when_there: str = ""
    """The sentence with the numbers of the part that decides whether the effect is there."""
    when_gone: str = ""
    """The sentence with the numbers of the part that decides whether it is negligible."""
    otherwise: str = ""
    """What the numbers are where nothing is certain; `when_there` if empty."""
    needs: Callable[[float], tuple[str, Needs | None]] | None = field(default=None, compare=False)
    """What would decide it, given the error rate that Holm leaves for absence: a sentence, and the sizes."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """What became of one prediction, for one class. `v.estimate` is `v.effect.estimate`, and so on."""

    prediction: str
    cls: str
    claim: str
    outcome: Outcome
    reason: str
    """One sentence with the numbers that decided."""
    arm: str
    style: str
    band: str
    effect: Effect
    control: bool = False
    stands: int | None = None
    """In how many of 40 deals of the prompts the outcome comes out; None where nothing is decided."""
    depends: str = ""
    """What the verdict depends on that is not decided: `control C1 is undecided`."""
    deviated: str = ""
    """How the table departs from one that was fixed before training; empty where it does not."""

    @property
    def supported(self) -> bool:
        """Whether the claim holds, by the evidence."""
        return self.outcome == "supported"

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """What `as_row` made, as it is or read back from JSON; columns that are not known are left out."""
        row = {_FIELD.get(column, column): value for column, value in row.items()}
        row["token_ids"] = tuple(row.get("token_ids") or ())
        row["onset"] = tuple(row["onset"]) if row.get("onset") else None
        own, numbers = ({k: v for k, v in row.items() if k in names} for names in (_OWN, _NUMBERS))
        return cls(effect=Effect(**numbers), **own)

    def as_row(self) -> dict[str, Any]:
        """Flat: every field and every number of the effect by its name, but `cls` as `class`."""
        row = dataclasses.asdict(self)
        numbers = row.pop("effect")
        return {_COLUMN.get(name, name): value for name, value in (row | numbers).items()}

    def __getattr__(self, name: str) -> Any:
        # Called only for what is no field of a verdict: hypotheses and reports ask for `verdict.estimate`.
        if name in _NUMBERS:
            return getattr(self.effect, name)
        raise AttributeError(f"a verdict has no {name!r}; it has {', '.join([*_OWN, *_NUMBERS])}")

    def __repr__(self) -> str:
        return f"<{self.prediction}[{self.cls}] {self.outcome}>"

    def __str__(self) -> str:
        e = self.effect
        place = "" if e.layer is None else f" (L{e.layer}, step {e.step})"
        runs = f"{e.n_prompts} prompts a class judged, {e.n_seeds} seed{'s' * (e.n_seeds != 1)}"
        depends = f" ({self.depends})" if self.depends else ""
        depends += f"\n  DEVIATED: {self.deviated}" if self.deviated else ""
        return (
            f"{self.prediction}[{self.cls}] {self.outcome}: {self.claim}\n"
            f"  {self.reason}{depends}\n"
            f"  {e.statistic}{place}, {self.arm}, {self.style} style, {runs}"
        )


_NUMBERS = tuple(f.name for f in dataclasses.fields(Effect))
_OWN = tuple(f.name for f in dataclasses.fields(Verdict) if f.name != "effect")
_COLUMN = {"cls": "class"}
_FIELD = {column: name for name, column in _COLUMN.items()}
_SHARES = ("mass", "accuracy", "share", "fraction", "probability")


def is_share(statistic: str) -> bool:
    """Whether a statistic is read as a percentage: masses and their growth are, AUROC is not."""
    return any(word in statistic.lower() for word in _SHARES)


def failed_controls(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Controls that are falsified: something was found where nothing can be."""
    return [v for v in verdicts if v.control and v.outcome == "falsified"]


def undecided_controls(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Controls that did not show that there is nothing: neither a pass nor a failure."""
    return [v for v in verdicts if v.control and v.outcome == "inconclusive"]


def require_controls(verdicts: Sequence[Verdict]) -> None:
    """Refuse verdicts that depend on a failed control.

    Raises
    ------
    BrokenExperiment
        A control has failed; the message names it and its evidence.
    """
    if failed := failed_controls(verdicts):
        named = "; ".join(f"control {v.prediction}[{v.cls}] failed: {v.reason}" for v in failed)
        raise BrokenExperiment(f"{named}. No verdict of this run counts until the cause is found")
