"""What criteria share: the masses and probes of a study, each computed once, and what blocks every criterion.

In: a `Study`. Out: `Masses` and `Probes` of what a prediction speaks of, an `Effect` without numbers, and the
reasons why no number could decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..analysis import intervals, masses, permutation, power, probes
from ..analysis.intervals import Interval
from ..analysis.masses import Masses
from ..analysis.pairs import ENOUGH
from ..analysis.power import Needs
from ..analysis.probes import Probes
from ..config.settings import UNTRAINED
from ..errors import UsageError
from ..readings.bands import layers
from ..readings.readings import EVALUATION, Readings, Study
from .predictions import Prediction
from .verdict import Effect


class Measurements:
    """The masses and probes of one study; predictions that speak of the same ones share them."""

    def __init__(self, study: Study, permutations: int = permutation.PERMUTATIONS) -> None:
        self._study = study
        self._permutations = permutations
        self._masses: dict[tuple[str, ...], Masses] = {}
        self._probes: dict[tuple[str, ...], Probes] = {}

    def runs(self, p: Prediction) -> tuple[Readings, ...]:
        """The runs of the prediction's arm, by seed.

        Raises
        ------
        UsageError
            The arm was not run, the style was not read, or there is no such band.
        """
        runs = self._study.arm(p.arm)
        if not runs:
            known = dict.fromkeys([*UNTRAINED, *(r.arm for r in self._study.runs)])
            raise UsageError(f"{p.id}: arm {p.arm!r} was not run; there are {', '.join(known)}")
        layers(p.band, runs[0].n_layers)
        if not any(q.style == p.style and q.half == EVALUATION for q in runs[0].prompts):
            raise UsageError(f"{p.id}: style {p.style!r} was not read; add it to read_styles")
        return runs

    def permutations(self, p: Prediction) -> int:
        """How many decide a p; the table's length adds none to a control's, which is adjusted for nothing."""
        return permutation.PERMUTATIONS if p.control else self._permutations

    def masses(self, p: Prediction, cls: str, family: str) -> Masses:
        """The masses at the layers of the band; with `any_step`, of every checkpoint after step 0."""
        runs, key = self.runs(p), (p.arm, p.style, family, cls)
        if key not in self._masses:
            self._masses[key] = masses.from_readings(runs, p.style, family, cls)
        m = self._masses[key]
        m = m.within(np.flatnonzero(np.isin(m.layer, layers(p.band, runs[0].n_layers))).tolist())
        return m.over_steps() if p.any_step and len(m.steps) > 1 else m

    def probes(self, p: Prediction) -> Probes:
        """The probes at the layers of the band."""
        first, key = self.runs(p)[0], (p.arm, p.style, p.band)
        if key not in self._probes:
            self._probes[key] = probes.fit_all(first, p.style, layers(p.band, first.n_layers))
        return self._probes[key]

    def unlearned(self, p: Prediction, cls: str) -> str:
        """Why the claim says nothing: too few answers are right; empty where none are asked for."""
        if not p.min_accuracy or p.arm in UNTRAINED:
            return ""
        runs = self.runs(p)
        right = masses.exact(runs, cls, len(runs[0].steps) - 1)
        if np.isnan(right):
            return "the model was left to answer in no style that it was trained on"
        if right >= p.min_accuracy:
            return ""
        needed = f"{p.min_accuracy:.0%} are needed"
        return f"the task was not learned: {right:.0%} of whole answers are right, {needed}"

    def token_ids(self, p: Prediction, cls: str, family: str) -> tuple[int, ...]:
        """The tokens whose mass it is: the class's own, every answer's, or those of all random sets."""
        first = self.runs(p)[0]
        if family == "answer":
            return tuple(int(i) for i in first.answer_ids)
        sets = first.token_sets.get(family.replace(" ", "_"), {})
        return tuple(sets.get(cls) or sorted({i for ids in sets.values() for i in ids}))


def step_index(p: Prediction, steps: Sequence[int]) -> int:
    """The base model is step 0; every other claim is about the last checkpoint."""
    return 0 if p.arm in UNTRAINED else len(steps) - 1


def effect_without_numbers(p: Prediction, m: Masses, statistic: str = "") -> Effect:
    """What is measured, on how many prompts and seeds; `statistic` is a mass unless it is named."""
    mass = "own-answer mass" if m.family == "answer" else "own-class mass"
    return Effect(
        statistic=statistic or mass,
        family=m.family,
        threshold=p.threshold,
        n_prompts=m.n,
        n_seeds=m.n_seeds,
    )


def with_interval(
    effect: Effect, interval: Interval, cell: int, least: float = -np.inf, most: float = np.inf
) -> Effect:
    """The effect with one cell's estimate and interval, none of them beyond what the statistic can be."""
    values = (interval.estimate[cell], interval.low[cell], interval.high[cell])
    estimate, low, high = (float(np.clip(x, least, most)) for x in values)
    return replace(effect, estimate=estimate, low=low, high=high)


def unmeasured(p: Prediction, m: Masses) -> str:
    """Why there are no numbers at all; empty where there are some."""
    if len(m.layer) == 0:
        return f"the model has no layer in band {p.band}"
    if m.n < ENOUGH:
        left = f", {m.copied} left out as copying" if m.copied else ""
        return f"{m.n} prompts of the class to judge on{left}; at least {ENOUGH} are needed"
    if not (m.deals[0].any() and (~m.deals[0]).any()):
        return "all prompts of the class are in one half: none is left to choose a layer for the others"
    if m.own_answer is not None and np.ptp(m.own_answer) == 0:
        return "all problems of the class have one answer: none is left to tell the right one from"
    return ""


def undecidable(p: Prediction, m: Masses) -> str:
    """Why no number could decide the claim: there are none, or they are of too few runs; else empty."""
    if empty := unmeasured(p, m):
        return empty
    if m.n_seeds < p.min_seeds:
        runs = "this run" if m.n_seeds == 1 else f"these {m.n_seeds} runs"
        return f"speaks of {runs} only: the claim is about training and needs {p.min_seeds} seeds"
    return ""


TRAINED = 5
"""Seeds with which "no training does it" excludes that half of all trainings do."""


def few_seeds(p: Prediction, seeds: int) -> str:
    """Why what these seeds lack is not shown to be lacking after training; empty where it is.

    Training may work in some seeds and not in others. The base model is one model; a control, and a claim
    read in one or two runs, speak of the runs at hand.
    """
    if p.arm in UNTRAINED or p.control or seeds >= TRAINED or (seeds < 3 and p.min_seeds < 2):
        return ""
    return f"none of {seeds} seeds has it, but {TRAINED} are needed to speak of training"


def excluded(seeds: int) -> str:
    """What it excludes that none of these seeds has it."""
    if seeds == 1:
        return "this says nothing of other seeds"
    share = 100 * intervals.excluded_share(seeds)
    return f"this excludes (at 95 %) only that more than {share:.0f} % of seeds have it"


def presence_bound(p: Prediction) -> float:
    """What an effect's lower end must exceed: `threshold`, and never less than what counts as none."""
    return max(p.threshold, p.negligible)


def seeds_that_may_do(p: Prediction, n_seeds: int, absence: bool) -> tuple[int, ...]:
    """Numbers of seeds that a study like this one could have, the fewest first."""
    if p.arm in UNTRAINED:
        return (1,)
    fewest = TRAINED if absence and not p.control else p.min_seeds
    return tuple(sorted({max(n_seeds, fewest), *(s for s in power.SEEDS if s >= max(n_seeds, fewest))}))


def wanted(what: str, found: Needs | None, m: Masses | None = None) -> tuple[str, Needs | None]:
    """`if it is as large as it looks, about 120 prompts and 5 seeds would decide it`.

    Of `m`, as many prompts more are asked for as were left out because their answer could be copied.
    """
    if found and m is not None and m.copied:
        asked = 10 * math.ceil(found.prompts * (m.n + m.copied) / m.n / 10)
        whole = replace(found, prompts=asked)
        return f"{what}, {whole} would decide it ({found.prompts} of them that cannot be copied)", whole
    if found:
        return f"{what}, {found} would decide it", found
    return f"{what}, {power.PROMPTS[-1]} prompts and {power.SEEDS[-1]} seeds would not decide it", None
