"""Masses to evidence: is there a classifier in these cells, or none, with all numbers for the answer.

In: `Masses`. Out: `Evidence`. The prompts of a class are dealt into two halves; each half chooses a cell (a
layer), and is judged at the cell that the other half chose: no prompt chooses where it is judged. This is
done for 40 deals. Absence chooses nothing: it is looked at in every cell, on all prompts, in each seed. The
rules are those of `docs/concepts.md`; numbers become decisions in `verdicts`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from . import intervals, permutation
from .masses import Masses

STRENGTH, MARGIN, OTHERS, GAIN, AGREES = "strength", "margin", "others", "gain", "agrees"
AGAINST = "against "
"""`against subtract`: the class's own tokens here, minus on the same problems as subtractions."""
_WEIGHT = {STRENGTH: 0.8, GAIN: 0.1}
"""Shares of the error rate that the parts of a classifier have when one of them is to be shown absent."""
CELLS = 2
"""Cells that a plasmode study of absence looks at: those where absence is least sure."""
LIGHTEST = _WEIGHT[STRENGTH] - _WEIGHT[GAIN]
"""Of strength, where a gain has a share too: the p of strength is divided by no less."""


@dataclass(frozen=True)
class Part:
    """One of the quantities that must all be large where there is a classifier, for each prompt."""

    name: str
    now: Float[np.ndarray, "seed pair cell"]
    before: Float[np.ndarray, "seed pair cell"]
    """The same at step 0."""
    index: Int[np.ndarray, " pair"]
    """Which of the class's prompts these are: all, or those with a partner."""
    most: float
    """The largest value that there can be."""

    @property
    def least(self) -> float:
        """The smallest value that there can be."""
        return 0.0 if self.name == STRENGTH else -self.most


def parts(m: Masses, step: int) -> tuple[Part, ...]:
    """Strength, and what tells the classes apart.

    Own mass minus that of the largest other class on the same prompt (`margin`); for answers, minus that of
    other problems' answers (`others`); for words, the class's tokens here minus on partners of each other
    class (`against ...`).
    """
    everyone = np.arange(m.n)

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[:, step], x[:, 0]

    found = [
        Part(STRENGTH, *both(m.own), everyone, 1.0),
        Part(MARGIN, *both(m.own - m.largest), everyone, 1.0),
    ]
    if m.answers is not None:
        found.append(Part(OTHERS, *both(m.own - m.others), everyone, m.others_reach))
    for cls, x in m.counterfactual.items():
        index = m.paired[cls]
        found.append(Part(AGAINST + cls, *both(m.own[:, :, index] - x), index, 1.0))
    return tuple(found)


@dataclass(frozen=True)
class Absence:
    """How surely each cell lacks a part of a classifier."""

    p: Float[np.ndarray, "seed cell"]
    """P-value of "every part is at least `negligible`"; of the part that speaks, divided by its weight."""
    part: Int[np.ndarray, "seed cell"]
    """The part that speaks: an index into `names`."""
    names: tuple[str, ...]
    seed: int
    cell: int
    """Where absence is least sure: it decides, for absence must hold in all seeds and cells."""
    values: Float[np.ndarray, " pair"]
    """Of the part that speaks there, one a prompt."""
    weight: float
    """Its share of the error rate."""
    least: float
    most: float
    """The smallest and the largest value that it can have."""

    @property
    def estimate(self) -> float:
        """Its mean."""
        return float(self.values.mean())

    @functools.cached_property
    def low(self) -> float:
        """A lower bound of its mean."""
        return intervals.lower(self.values, intervals.ALPHA / 2, self.least)

    @functools.cached_property
    def high(self) -> float:
        """An upper bound of its mean, at its share of the error rate."""
        return intervals.upper(self.values, intervals.ALPHA * self.weight, self.most)

    @property
    def name(self) -> str:
        """The part that speaks where absence is least sure."""
        return self.names[int(self.part[self.seed, self.cell])]


@dataclass(frozen=True)
class Evidence:
    """What the prompts say about every cell, and which cells their halves chose in each deal."""

    masses: Masses
    step: int
    """Index into `masses.steps`."""
    parts: tuple[Part, ...]
    emerges: bool
    """The weakest part must have grown since step 0."""
    chosen: Int[np.ndarray, "deal half"]
    """Cell where the weakest of the parts is largest, on each half."""
    judged: dict[str, intervals.Judged]
    """By part, a cell a deal: each prompt at the cell that the other half chose."""

    def holds(self, bound: float) -> Bool[np.ndarray, " deal"]:
        """Whether there is a classifier, by the intervals, in each deal: every part lies above its bound."""
        there = np.ones(len(self.chosen), dtype=bool)
        for name, interval in self.judged.items():
            there &= interval.exceed(self.bound(name, bound))
        return np.asarray(there & ~self._constant())

    def bound(self, name: str, threshold: float) -> float:
        """What the lower end of a part must exceed: `threshold`, and of the confusion table chance."""
        return 1 / self.masses.columns if name == AGREES else threshold

    def weakest(self, threshold: float) -> str:
        """The part that decides in the recorded deal: whose lower end is least above its bound.

        The confusion table decides only where every mass is large enough.
        """
        masses = {k: x.low[0] - threshold for k, x in self.judged.items() if k != AGREES}
        least = min(masses, key=lambda k: masses[k])
        agrees = self.judged.get(AGREES)
        if masses[least] > 0 and agrees is not None and agrees.low[0] <= self.bound(AGREES, threshold):
            return AGREES
        return least

    def constant(self) -> bool:
        """Every prompt reads the same where it is judged: no interval can be given."""
        return bool(self._constant()[0])

    def _constant(self) -> Bool[np.ndarray, " deal"]:
        own = self.masses.own[:, self.step]
        flat = np.ptp(own, axis=(0, 1)) == 0
        return np.asarray(flat[self.chosen].any(axis=1))

    @property
    def strongest(self) -> int:
        """Cell with most own-class mass."""
        return int(self.parts[0].now.mean(axis=(0, 1)).argmax())

    def p(self, permutations: int) -> Float[np.ndarray, " cell"]:
        """Max-T permutation p of each cell: the largest of all cells is what each is held against."""
        m = self.masses
        if m.answers is not None and m.own_answer is not None:
            return permutation.matching(m.answers[:, self.step].mean(axis=0), m.own_answer, permutations)
        scores, labels = self._scores()
        return permutation.separation(scores, labels, permutations, m.group)[1]

    def areas(self) -> Float[np.ndarray, " cell"] | None:
        """One-vs-rest AUROC of each cell, mean over seeds; None for answers, which have no rest."""
        if self.masses.rest is None:
            return None
        scores, labels = self._scores()
        return np.asarray(np.mean([permutation.auroc(seed, labels[None])[:, 0] for seed in scores], axis=0))

    def _scores(self) -> tuple[Float[np.ndarray, "seed cell n"], Bool[np.ndarray, " n"]]:
        """The class's own mass on its own prompts and on all others, and which are which."""
        m = self.masses
        assert m.rest is not None
        scores = np.moveaxis(np.concatenate([m.own[:, self.step], m.rest[:, self.step]], axis=1), 1, 2)
        return scores, np.arange(scores.shape[-1]) < m.n

    def absence(self, negligible: float) -> Absence:
        """How surely each cell lacks some part; exact for few prompts and masses near 0 and 1 (Gaffke).

        At a cell one negligible part is enough: the parts share the error rate by fixed weights. All cells
        and seeds must be so: an intersection-union test, whose p-value is the largest, without a correction.
        """
        names = [part.name for part in self.parts] + [GAIN] * self.emerges
        weights = [self.weight(name) for name in names]
        p = np.stack([np.stack([self._p(i, s, negligible) for i in range(len(names))]) for s in self._seeds])
        # Not cut at 1 yet: of cells that are all far from certain, the least sure one is to be found.
        scaled = p / np.array(weights)[None, :, None]
        p, part = scaled.min(axis=1), scaled.argmin(axis=1)
        seed, cell = (int(i) for i in np.unravel_index(int(p.argmax()), p.shape))
        p = np.minimum(p, 1.0)
        x, least, most = self._values(int(part[seed, cell]), seed, cell)
        return Absence(p, part, tuple(names), seed, cell, x, weights[part[seed, cell]], least, most)

    def least_sure(self, absence: Absence, alpha: float) -> list[tuple[np.ndarray, float, float]]:
        """For `power.power_gone`, where absence is least sure: values, error rate, largest value."""
        cells = np.argsort(-absence.p.max(axis=0), kind="stable")[:CELLS].tolist()
        cells = [absence.cell, *(c for c in cells if c != absence.cell)][:CELLS]
        found = []
        for cell in cells:
            index = int(absence.part[int(absence.p[:, cell].argmax()), cell])
            values = [self._values(index, s, cell) for s in self._seeds]
            share = alpha * self.weight(absence.names[index])
            found.append((np.stack([x for x, _, _ in values]), share, max(most for _, _, most in values)))
        return found

    def where_judged(self) -> tuple[tuple[str, ...], Float[np.ndarray, "seed prompt part"]]:
        """Every part where the recorded deal judges it, one value a prompt that has all of them."""
        index = {q.name: q.index for q in self.parts}
        shared = functools.reduce(np.intersect1d, index.values())
        everyone = np.arange(self.masses.n)
        found = [x.values[:, np.isin(index.get(k, everyone), shared), 0] for k, x in self.judged.items()]
        return tuple(self.judged), np.stack(found, axis=-1)

    def _values(self, index: int, seed: int, cell: int) -> tuple[Float[np.ndarray, " pair"], float, float]:
        """The values of a part, one a prompt, the smallest and the largest that there can be."""
        if index < len(self.parts):
            q = self.parts[index]
            return q.now[seed, :, cell], q.least, q.most
        q = max(self.parts, key=lambda q: (q.now - q.before)[seed, :, cell].mean())
        return (q.now - q.before)[seed, :, cell], -_reach(q), _reach(q)

    def weight(self, name: str) -> float:
        """The share of the error rate that a part has when it is to be shown absent; they add up to 1."""
        if name == STRENGTH:
            return LIGHTEST if self.emerges else _WEIGHT[STRENGTH]
        return _WEIGHT.get(name, (1 - _WEIGHT[STRENGTH]) / max(len(self.parts) - 1, 1))

    @property
    def _seeds(self) -> range:
        return range(self.masses.n_seeds)

    def _p(self, index: int, seed: int, negligible: float) -> Float[np.ndarray, " cell"]:
        if index < len(self.parts):
            part = self.parts[index]
            return intervals.p_at_least(part.now[seed], negligible, part.most)
        # The weakest part has not grown where none has grown from what it was.
        grown = [
            intervals.p_at_least(q.now[seed] - q.before[seed], negligible, _reach(q)) for q in self.parts
        ]
        return np.asarray(np.max(grown, axis=0))


def _reach(q: Part) -> float:
    """The largest growth that a part can have."""
    return q.most if q.name == STRENGTH else 2 * q.most


def measure(m: Masses, step: int, emerges: bool, apart: bool = True) -> Evidence:
    """Choose cells on each half of each deal, and judge them on the other half.

    `apart=False` lets each half be judged at the cell that it chose itself; it is a parameter so that a test
    can break it on purpose.
    """
    found = parts(m, step)
    means = np.stack([_means(q.now, q.index, m.deals) for q in found])  # part deal half cell
    chosen = np.asarray(means.min(axis=0).argmax(axis=-1))
    chooser = np.where(m.deals, 1, 0) if apart else np.where(m.deals, 0, 1)  # [deal prompt]
    cells = np.take_along_axis(chosen, chooser, axis=1).T  # [prompt deal]
    judged = {q.name: intervals.judge(at(q.now, cells[q.index]), q.least) for q in found}
    if m.family in ("words", "words anywhere", "glyphs"):
        judged[AGREES] = intervals.judge(at((m.own > m.largest)[:, step].astype(float), cells), 0.0)
    if emerges:
        judged[GAIN] = _gain(found, m, means, chosen, chooser, cells)
    return Evidence(m, step, found, emerges, chosen, judged)


def cells_of_strength(m: Masses, step: int) -> Int[np.ndarray, "prompt deal"]:
    """For each prompt, the cell where the other half has most own-class mass."""
    means = _means(m.own[:, step], np.arange(m.n), m.deals)
    return _crossed(means.argmax(axis=-1), m.deals)


def _crossed(
    chosen: Int[np.ndarray, "deal half"], deals: Bool[np.ndarray, "deal n"]
) -> Int[np.ndarray, "n deal"]:
    """For each prompt, what the other half of it chose."""
    return np.take_along_axis(chosen, np.where(deals, 1, 0), axis=1).T


def _means(
    x: Float[np.ndarray, "seed pair cell"], index: Int[np.ndarray, " pair"], deals: Bool[np.ndarray, "deal n"]
) -> Float[np.ndarray, "deal half cell"]:
    """Means over seeds and the prompts of each half; very small where a half has none."""
    mean, result = x.mean(axis=0), []
    for half in (deals[:, index], ~deals[:, index]):
        count = half.sum(axis=1, keepdims=True)
        result.append(np.where(count > 0, half.astype(float) @ mean / np.maximum(count, 1), -1.0))
    return np.stack(result, axis=1)


def at(
    x: Float[np.ndarray, "seed n cell"], cells: Int[np.ndarray, "n deal"]
) -> Float[np.ndarray, "seed n deal"]:
    """The value of each prompt at its cell, in each deal."""
    return np.take_along_axis(x, np.broadcast_to(cells, (len(x), *cells.shape)), axis=2)


def _gain(
    found: Sequence[Part],
    m: Masses,
    means: Float[np.ndarray, "part deal half cell"],
    chosen: Int[np.ndarray, "deal half"],
    chooser: Int[np.ndarray, "deal n"],
    cells: Int[np.ndarray, "n deal"],
) -> intervals.Judged:
    """The weakest part now, minus the weakest part at step 0, both as the choosing half sees them."""
    full = [i for i, q in enumerate(found) if len(q.index) == m.n]
    before = np.stack([_means(found[i].before, found[i].index, m.deals) for i in full])
    there = chosen[None, :, :, None]
    weak_now = np.take_along_axis(means[full], there, axis=3)[..., 0].argmin(axis=0)  # [deal half]
    weak_then = np.take_along_axis(before, there, axis=3)[..., 0].argmin(axis=0)
    now = np.stack([at(found[i].now, cells) for i in full])
    then = np.stack([at(found[i].before, cells) for i in full])
    pick = [np.take_along_axis(w, chooser, axis=1).T[None, None] for w in (weak_now, weak_then)]
    grown = np.take_along_axis(now, pick[0], axis=0)[0] - np.take_along_axis(then, pick[1], axis=0)[0]
    # From all to nothing; further only where that was seen, for the parts now have bounds themselves.
    return intervals.judge(grown, min(-1.0, float(grown.min())))


def by_cell(e: Evidence) -> dict[str, intervals.Interval]:
    """Every part at every cell, on all prompts, for the report: nothing is decided by it."""
    return {q.name: intervals.bootstrap(q.now) for q in e.parts}
