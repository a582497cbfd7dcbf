"""Masses to evidence: is there a classifier in these cells, with every number that the answer needs.

In: `Masses`. Out: `Evidence`: an interval for each part of a classifier in each cell, the cell that the
selection half chose, p-values from the evaluation half. The rules are those of `docs/concepts.md`; numbers
become decisions in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..readings.readings import EVALUATION, SELECTION
from . import intervals, permutation
from .masses import Masses


@dataclass(frozen=True)
class Evidence:
    """What the evaluation half says about every cell, and which cell the selection half chose."""

    masses: Masses
    step: int
    """Index into `masses.steps`."""
    parts: dict[str, intervals.Interval]
    """`strength` (mean own-class mass), and what tells the classes apart: `apart` (own minus others on the
    same prompts), `elsewhere` (own tokens here minus on other classes' prompts),
    `gain` (the growth of that since step 0)."""
    chosen: int
    """Cell where the weakest of the parts is largest, on the selection half."""
    strongest: int
    """Cell with most own-class mass, on the selection half."""
    ceiling: Float[np.ndarray, " cell"]
    """Upper end of the part that looked smallest on the selection half: a classifier cannot exceed it."""

    def clear(self, cell: int, bounds: Mapping[str, float]) -> bool:
        """Every interval of the cell lies above its bound: where a classifier's must."""
        return all(bool(part.low[cell] > bounds[name]) for name, part in self.parts.items())

    def absent(self, negligible: float) -> bool:
        """At every cell some part of a classifier is negligible (an intersection-union test)."""
        return bool((self.ceiling < negligible).all())

    def constant(self, cell: int) -> bool:
        """Every prompt of the evaluation half reads the same there: no interval can be given."""
        values = self.masses.own[:, self.step, self.masses.half == EVALUATION, cell]
        return bool(np.ptp(values) == 0)

    def p(self, permutations: int) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"] | None]:
        """Max-T permutation p of each cell, and the one-vs-rest AUROC (None for answers)."""
        m, here = self.masses, self.masses.half == EVALUATION
        if m.answers is not None and m.own_answer is not None:
            mean = m.answers[:, self.step].mean(axis=0)[:, here]
            return permutation.matching(mean, m.own_answer[here], permutations), None
        assert m.rest is not None
        own, rest = m.own[:, self.step][:, here], m.rest[:, self.step][:, m.rest_half == EVALUATION]
        scores = np.moveaxis(np.concatenate([own, rest], axis=1), 1, 2)
        labels = np.arange(scores.shape[-1]) < own.shape[1]
        area, p = permutation.separation(scores, labels, permutations)
        return p, area


Parts = dict[str, tuple[Float[np.ndarray, "seed _ cell"], ...]]


def _parts(m: Masses, step: int, half: int, emerges: bool) -> Parts:
    """The strata whose means add up to each part, on one half."""

    def at(t: int) -> Parts:
        own, others = m.own[:, t][:, m.half == half], m.others[:, t][:, m.half == half]
        parts: Parts = {"strength": (own,), "apart": (own - others,)}
        if m.rest is not None:
            parts["elsewhere"] = (own, -m.rest[:, t][:, m.rest_half == half])
        return parts

    now = at(step)
    if emerges:
        name = "apart" if m.rest is None else "elsewhere"
        now["gain"] = tuple(a - b for a, b in zip(now[name], at(0)[name], strict=True))
    return now


def measure(
    m: Masses, step: int, emerges: bool, select: int = SELECTION, level: float = intervals.LEVEL
) -> Evidence:
    """Choose the cell on the selection half, give every cell's intervals on the evaluation half.

    `select` is the half that chooses; it is a parameter so that a test can break it on purpose.
    """
    means = {k: sum(x.mean(axis=(0, 1)) for x in v) for k, v in _parts(m, step, select, emerges).items()}
    stacked = np.stack([np.asarray(v) for v in means.values()])
    judged = _parts(m, step, EVALUATION, emerges)
    parts = {name: intervals.bootstrap(*strata, level=level) for name, strata in judged.items()}
    highs = np.stack([part.high for part in parts.values()])
    return Evidence(
        masses=m,
        step=step,
        parts=parts,
        chosen=int(stacked.min(axis=0).argmax()),
        strongest=int(stacked[0].argmax()),
        ceiling=np.take_along_axis(highs, stacked.argmin(axis=0)[None], 0)[0],
    )


def present(evidence: Evidence, bounds: Mapping[str, float], alpha: float, permutations: int) -> bool:
    """Whether there is a classifier at the chosen cell, p not adjusted for other predictions."""
    if not evidence.clear(evidence.chosen, bounds) or evidence.constant(evidence.chosen):
        return False
    return bool(evidence.p(permutations)[0][evidence.chosen] < alpha)
