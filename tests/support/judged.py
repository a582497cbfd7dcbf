"""A table of claims, judged on small simulated studies whose truth is known: what tests of verdicts share."""

from __future__ import annotations

from collections.abc import Iterable

from places import EXAMPLE
from synthetic import Plant, study

from emergence.verdicts import Prediction, Verdict, judging, load_predictions

HYPOTHESIS = EXAMPLE / "classifier_emergence"
TABLE = load_predictions(HYPOTHESIS / "predictions.py")
ROW = {p.id: p for p in TABLE}
LARGE = {"per_class": 160, "arms": {"sft": 5}}
"""With it absence can be shown, also of what training does."""
SMALL = {"n_layers": 8, "steps": (0, 50, 100), "styles": ("symbolic",), "hidden": 2}

Judged = dict[tuple[str, str], Verdict]


def judge(
    claims: Iterable[str | Prediction], *plants: Plant, advise: bool = False, **settings: object
) -> Judged:
    """{(prediction, class): verdict} of rows of the table, or of claims of one's own, on a small study."""
    rows = [ROW[claim] if isinstance(claim, str) else claim for claim in claims]
    verdicts = judging.judge(rows, study(*plants, **(SMALL | settings)), advise=advise)
    return {(v.prediction, v.cls): v for v in verdicts}


def outcomes(judged: Judged, prediction: str) -> set[str]:
    """The outcomes of one prediction over all classes."""
    return {v.outcome for v in judged.values() if v.prediction == prediction}


def kinds(judged: Judged, prediction: str) -> set[str]:
    """What the mass amounts to, over all classes: `classifier`, `bias`, `copying`, ..."""
    return {v.details["kind"] for v in judged.values() if v.prediction == prediction}
