"""How small a p can come out at all, and so what a table of predictions can ever decide.

In: the predictions and a config, before anything is trained. Out: the number of permutations that the table
needs, and a line for what no number could decide. A permutation p is never below 1 / (permutations + 1), nor
far below one over the number of different orders; Holm's adjustment then multiplies it by the number of
confirmatory tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..analysis import permutation
from ..config.settings import Config

if TYPE_CHECKING:
    from .predictions import Prediction

MOST = 49_999
"""Permutations beyond which the arrays would fill a small machine's memory: enough for 500 tests at 0.01."""


def permutations(predictions: Sequence[Prediction], classes: int) -> int:
    """So many that the smallest p, 1 / (permutations + 1), passes Holm's adjustment; `MOST` at most.

    A claim about one family or another counts twice: its p is doubled for the choice.
    """
    confirmatory = [p for p in predictions if not p.control]
    alpha = min((p.alpha for p in confirmatory), default=1.0)
    tests = classes * sum(len(p.family.split(" or ")) for p in confirmatory)
    return min(MOST, max(permutation.PERMUTATIONS, math.floor(tests / alpha)))


def undecidable(predictions: Sequence[Prediction], experiment: Config) -> dict[str, str]:
    """Id to why its p cannot come out below its alpha, not even if every other claim has the best of p's."""
    classes = len(experiment.task.classes)
    m = permutations(predictions, classes)
    rows = [p for p in predictions if not p.control]
    least = [_least(p, experiment, m) for p in rows for _ in range(classes)]
    adjusted = permutation.holm(least)
    told = {}
    for p, x, a in zip(rows, least[::classes], adjusted[::classes], strict=True):
        if a >= p.alpha:
            told[p.id] = (
                f"p is {x:.2g} at best, {a:.2g} after Holm over {len(least)} tests, not below {p.alpha:g}; "
                f"{'split the table' if _orders(p, experiment) > m else _remedy(p)}"
            )
    return told


def _least(p: Prediction, experiment: Config, m: int) -> float:
    """The smallest p of the claim for one class: over its permutations, or all orders if those are fewer."""
    return len(p.family.split(" or ")) / min(m + 1, _orders(p, experiment))


def _orders(p: Prediction, experiment: Config) -> int:
    """In how many ways the labels of the evaluation half, or the checkpoints of a run, can be ordered."""
    judged, classes = math.ceil(experiment.task.num_test / 2), len(experiment.task.classes)
    if p.test == "growth" and p.arm != "base":
        arm = experiment.arm(p.arm)
        return int(math.factorial(len(arm.checkpoint_steps)) ** len(arm.seeds))
    if p.test == "predicts correctness":
        return math.comb(judged, judged // 2)
    return math.factorial(judged) if p.family == "answer" else math.comb(judged * classes, judged)


def _remedy(p: Prediction) -> str:
    return "add checkpoints or seeds" if p.test == "growth" else "raise num_test"
