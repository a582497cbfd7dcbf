"""Each kind of test, applied to one prediction and one class: evidence to a draft of the verdict.

In: `Prediction`, the runs of its arm. Out: `Draft`: the numbers, what they would mean, and the sentences that
say so. `verdicts` decides. One function a kind of test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..analysis import evidence, permutation
from ..analysis.evidence import EVALUATION, MIN_EVALUATED, Evidence, Masses
from ..analysis.probes import Bench, Probe, has_control
from ..errors import UsageError
from ..readings.readings import Readings, Study
from .predictions import Prediction, layers

GLYPHS_OF = {"words": "glyphs"}


@dataclass(frozen=True)
class Draft:
    """A verdict before the p-values are adjusted for one another. The fields are those of `Verdict`."""

    statistic: str
    family: str
    found: str = ""
    """Said where the effect is there."""
    missing: str = ""
    """Said where it is negligible, or where nothing can be said for certain."""
    holds: bool = False
    """The effect has everything that it needs, but for the adjusted p."""
    refuted: bool = False
    """The effect is negligible, everywhere that the claim speaks of."""
    blocked: str = ""
    """Why nothing can be decided, whatever the numbers."""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    baseline: float | None = None
    p: float | None = None
    layer: int | None = None
    step: int | None = None
    onset: tuple[int | None, int] | None = None
    n_prompts: int = 0
    n_seeds: int = 0
    token_ids: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Desk:
    """Drafts for one study; what predictions share (masses, probes) is computed once."""

    def __init__(self, study: Study, permutations: int = permutation.PERMUTATIONS) -> None:
        self._study = study
        self._permutations = permutations
        self._kept: dict[tuple[str, ...], Any] = {}

    def draft(self, p: Prediction, cls: str) -> Draft:
        """The draft of one prediction for one class.

        Raises
        ------
        UsageError
            The arm was not run, the style was not read, or there is no such band.
        """
        runs = self._runs(p)
        layers(p.band, runs[0].n_layers)
        if not any(q.style == p.style and q.half == EVALUATION for q in runs[0].prompts):
            raise UsageError(f"{p.id}: style {p.style!r} was not read; add it to read_styles")
        if p.test == "probe":
            return self._probe(p, cls, runs)
        drafts = [_TESTS[p.test](self, p, cls, family, runs) for family in p.family.split(" or ")]
        return drafts[0] if len(drafts) == 1 else _either(drafts)

    def _runs(self, p: Prediction) -> tuple[Readings, ...]:
        runs = self._study.arm(p.arm)
        if not runs:
            known = dict.fromkeys(["base", *(r.arm for r in self._study.runs)])
            raise UsageError(f"{p.id}: arm {p.arm!r} was not run; there are {', '.join(known)}")
        return runs

    def permutations(self, p: Prediction) -> int:
        """How many decide a p; a control's is adjusted for nothing."""
        return permutation.PERMUTATIONS if p.control else self._permutations

    def masses(self, p: Prediction, cls: str, family: str, runs: Sequence[Readings]) -> Masses:
        """The masses of the band's cells."""
        key = (p.arm, p.style, family, cls)
        if key not in self._kept:
            self._kept[key] = evidence.masses(runs, p.style, family, cls)
        m: Masses = self._kept[key]
        m = m.within(np.flatnonzero(np.isin(m.layer, layers(p.band, runs[0].n_layers))).tolist())
        return m.over_steps() if p.any_step and len(m.steps) > 1 else m

    def _probe(self, p: Prediction, cls: str, runs: Sequence[Readings]) -> Draft:
        if not has_control([q for q in runs[0].prompts if q.style == p.style]):
            why = "these prompts have no operands, so there is no control task to compare a probe with"
            return Draft("selectivity", p.family, blocked=why, threshold=p.threshold)
        key = ("probe", p.style, p.band)
        if key not in self._kept:
            self._kept[key] = Bench(runs[0], p.style, layers(p.band, runs[0].n_layers), self.permutations(p))
        bench: Bench = self._kept[key]
        found = bench.probe(cls)
        return _probed(p, cls, found, bench.confusion(found.chosen).tolist())


def _step(p: Prediction, m: Masses) -> int:
    """The base model is step 0; every other claim is about the last checkpoint."""
    return 0 if p.arm == "base" else len(m.steps) - 1


def _bounds(p: Prediction) -> dict[str, float]:
    """What the lower end of each part must exceed."""
    return {"strength": p.threshold, "apart": 0.0, "elsewhere": 0.0, "gain": p.threshold}


def _blocked(p: Prediction, m: Masses) -> str:
    """Why no number could decide the claim: there are none, or they are of too few runs."""
    if empty := _unmeasured(p, m):
        return empty
    if m.n_seeds < p.min_seeds:
        runs = "this run" if m.n_seeds == 1 else f"these {m.n_seeds} runs"
        return f"speaks of {runs} only: the claim is about training and needs {p.min_seeds} seeds"
    return ""


def _unmeasured(p: Prediction, m: Masses) -> str:
    """Why there are no numbers at all."""
    if len(m.layer) == 0:
        return f"the model has no layer in band {p.band}"
    if m.evaluated() < MIN_EVALUATED or (m.half == 0).sum() < MIN_EVALUATED:
        left = f", {m.copied} left out as copying" if m.copied else ""
        return f"{m.evaluated()} prompts of the class to judge on{left}; at least {MIN_EVALUATED} are needed"
    if m.own_answer is not None and any(np.ptp(m.own_answer[m.half == h]) == 0 for h in (0, 1)):
        return "all problems of the class have one answer: none is left to tell the right one from"
    return ""


def _classifier(desk: Desk, p: Prediction, cls: str, family: str, runs: Sequence[Readings]) -> Draft:
    """Is there a classifier: strength, discrimination, place (and growth, where it must emerge)."""
    m = desk.masses(p, cls, family, runs)
    if empty := _unmeasured(p, m):
        return _empty(p, m, family, empty)
    step = _step(p, m)
    e = evidence.measure(m, step, p.emerges)
    holds = e.clear(e.chosen, _bounds(p))
    refuted = e.absent(p.negligible)
    cell = e.chosen if holds else e.strongest
    pvalues, area = e.p(desk.permutations(p))
    kind = _kind(desk, p, cls, family, runs, e, bool(holds and pvalues[e.chosen] < p.alpha), refuted)
    blocked = _blocked(p, m)
    if e.constant(cell):
        blocked = blocked or f"every prompt reads the same at L{m.layer[cell]}: no interval can be given"
    said = _describe(e, cell, family)
    details = _details(e, cell, kind, area, pvalues, p.threshold)
    if family == "words" and holds and not p.any_step:
        table, balanced = permutation.confusion(
            *evidence.class_masses(runs, p.style, step, int(m.layer[cell]))
        )
        details |= {"confusion": table.tolist(), "balanced_accuracy": balanced}
    return Draft(
        statistic=_statistic(p, family),
        family=family,
        found=said,
        missing=f"{_KINDS[kind]}: {_bounded(e, cell, p) if refuted else said}",
        holds=holds,
        refuted=refuted,
        blocked=f"{blocked}. Here {said}" if blocked else "",
        threshold=p.threshold,
        baseline=float(m.own[:, 0][:, m.half == EVALUATION, cell].mean()),
        p=float(pvalues[cell]),
        layer=int(m.layer[cell]),
        step=m.steps[step] if m.when is None else int(m.when[cell]),
        onset=_onset(desk, p, m) if holds and step and m.when is None else None,
        details=details,
        token_ids=_ids(runs[0], family, cls),
        **_counts(m),
        **_ends(e.parts["strength"], cell, 0.0, 1.0),
    )


_KINDS = {
    "classifier": "a classifier",
    "bias": "a bias, no classifier (the mass is there whichever the prompt)",
    "copying": "copying, no classifier (the operator's glyph is read out, no word is)",
    "earlier": "no new classifier (the base model has as much already)",
    "absent": "no classifier",
    "unclear": "not decided",
}


def _kind(
    desk: Desk,
    p: Prediction,
    cls: str,
    family: str,
    runs: Sequence[Readings],
    e: Evidence,
    is_: bool,
    refuted: bool,
) -> str:
    """What the mass that is there amounts to."""
    if is_:
        return "classifier"
    cell = e.strongest
    if float(e.parts["strength"].low[cell]) > p.threshold:
        apart = [name for name in ("apart", "elsewhere") if name in e.parts]
        if (
            all(e.parts[name].low[cell] > 0 for name in apart)
            and e.p(desk.permutations(p))[0][cell] < p.alpha
        ):
            return "earlier" if refuted else "unclear"
        return "bias"
    if family in GLYPHS_OF:
        glyphs = evidence.measure(desk.masses(p, cls, GLYPHS_OF[family], runs), e.step, False)
        if evidence.present(glyphs, _bounds(p), p.alpha, desk.permutations(p)):
            return "copying"
    return "absent" if refuted else "unclear"


def _describe(e: Evidence, cell: int, family: str) -> str:
    """One clause with every number that a classifier is judged by."""
    other = "other problems' answers" if family == "answer" else "the other classes' tokens"
    s = e.parts["strength"]
    own = "answer" if family == "answer" else "class"
    told = [f"L{e.masses.layer[cell]} holds {_share(s, cell)} on the own {own}"]
    told.append(f"{_share(e.parts['apart'], cell)} more than on {other}")
    if "elsewhere" in e.parts:
        told.append(f"{_share(e.parts['elsewhere'], cell)} more than on other classes' prompts")
    if "gain" in e.parts:
        told.append(f"{_share(e.parts['gain'], cell)} of that gained since step 0")
    return ", ".join(told)


def _bounded(e: Evidence, cell: int, p: Prediction) -> str:
    """One clause on what is too small everywhere, and how small it could have been and still be seen."""
    at, s = int(e.ceiling.argmax()), e.parts["strength"]
    seen = permutation.detectable(p.threshold, float(s.se[cell]), float(s.df[cell]))
    return (
        f"the upper end is below {_percent(p.negligible)} at every layer of the band, the largest "
        f"{_percent(e.ceiling[at])} at L{e.masses.layer[at]}; most mass at L{e.masses.layer[cell]}, "
        f"{_share(s, cell)}; a mass of {_percent(seen)} would have shown"
    )


def _percent(x: float) -> str:
    return f"{round(100 * float(x), 1) + 0.0:.1f} %"


def _share(i: permutation.Interval, cell: int) -> str:
    low, high = _percent(i.low[cell]).removesuffix(" %"), _percent(i.high[cell]).removesuffix(" %")
    return f"{_percent(i.estimate[cell])} [{low}, {high}]"


def _details(
    e: Evidence, cell: int, kind: str, area: np.ndarray | None, p: np.ndarray, threshold: float
) -> dict[str, Any]:
    """Arrays by layer, for the report; of random words, the largest set of each layer."""
    where = e.masses.layer
    known = np.unique(where)
    best = [int(np.flatnonzero(where == i)[e.parts["strength"].estimate[where == i].argmax()]) for i in known]
    s = e.parts["strength"]
    out: dict[str, Any] = {
        "kind": kind,
        "layers": known.tolist(),
        "ceiling": float(e.ceiling.max()),
        "detectable": permutation.detectable(threshold, float(s.se[cell]), float(s.df[cell])),
        "copied": e.masses.copied,
        "p_by_layer": p[best].tolist(),
    }
    for name, part in e.parts.items():
        out[name] = {k: getattr(part, k)[best].tolist() for k in ("estimate", "low", "high")}
    if area is not None:
        out |= {"auroc": float(area[cell]), "auroc_by_layer": area[best].tolist()}
    return out


def _onset(desk: Desk, p: Prediction, m: Masses) -> tuple[int | None, int] | None:
    """The checkpoints between which the classifier emerged; p not adjusted for other predictions."""
    there = [
        evidence.present(
            evidence.measure(m, t, p.emerges and t > 0), _bounds(p), p.alpha, desk.permutations(p)
        )
        for t in range(len(m.steps))
    ]
    return permutation.onset(there, m.steps)


def _growth(desk: Desk, p: Prediction, cls: str, family: str, runs: Sequence[Readings]) -> Draft:
    """Does strength rise with the steps: slope over the checkpoints, at the layer that strength chose."""
    m = desk.masses(p, cls, family, runs)
    blocked = _blocked(p, m)
    if len(m.steps) < 3:
        return _empty(p, m, family, f"{len(m.steps)} checkpoints are no trend; three are needed")
    if not len(m.layer) or m.evaluated() < MIN_EVALUATED:
        return _empty(p, m, family, blocked)
    e = evidence.measure(m, len(m.steps) - 1, False)
    cell, here = e.chosen, m.half == EVALUATION
    own = np.moveaxis(m.own[:, :, here, cell], 1, 0)
    per_step = permutation.slopes(own, m.steps)[..., None]
    slope = permutation.bootstrap(100 * per_step)
    rho, p_value = permutation.trend(own.mean(axis=2).T, desk.permutations(p))
    if np.ptp(own) == 0:
        blocked = (
            blocked or f"strength is the same at every checkpoint at L{m.layer[cell]}: no trend can be given"
        )
    span = (m.steps[-1] - m.steps[0]) / 100
    said = (
        f"at L{m.layer[cell]} own-class mass grows by {_share(slope, 0)} per 100 steps, "
        f"{_percent(slope.estimate[0] * span)} over {m.steps[-1]} steps, rank correlation {rho:.2f}"
    )
    return Draft(
        statistic=_statistic(p, family),
        family=family,
        found=said,
        missing=said,
        holds=bool(slope.low[0] > p.threshold),
        refuted=bool(slope.high[0] * span < p.negligible),
        blocked=f"{blocked}. Here {said}" if blocked else "",
        threshold=p.threshold,
        baseline=0.0,
        p=p_value,
        layer=int(m.layer[cell]),
        step=m.steps[-1],
        details={"by_step": own.mean(axis=(1, 2)).tolist(), "steps": list(m.steps), "rho": rho},
        token_ids=_ids(runs[0], family, cls),
        **_counts(m),
        **_ends(slope, 0),
    )


def _correctness(desk: Desk, p: Prediction, cls: str, family: str, runs: Sequence[Readings]) -> Draft:
    """Is a prompt with more mass answered right more often: AUROC, at the layer chosen for strength."""
    m = desk.masses(p, cls, family, runs)
    blocked = _blocked(p, m)
    if not len(m.layer) or m.evaluated() < MIN_EVALUATED:
        return _empty(p, m, family, blocked)
    step = _step(p, m)
    cell, here = evidence.measure(m, step, False).chosen, m.half == EVALUATION
    right = evidence.correct(runs, p.style, cls, step)[:, here]
    area = permutation.predicts(m.own[:, step][:, here, cell], right, desk.permutations(p))
    if area is None:
        return _empty(
            p, m, family, f"all answers are {'right' if right.any() else 'wrong'}: nothing to predict"
        )
    if area.usable < p.min_seeds:
        blocked = (
            blocked or f"all answers are right, or all wrong, in all but {area.usable} of {m.n_seeds} runs"
        )
    said = (
        f"at L{m.layer[cell]} own-answer mass tells right from wrong answers with AUROC {area.estimate:.2f} "
        f"[{area.low:.2f}, {area.high:.2f}]; {right.mean():.0%} are right"
    )
    return Draft(
        statistic=_statistic(p, family),
        family=family,
        found=said,
        missing=said,
        holds=area.low > p.threshold,
        refuted=area.high < p.negligible,
        blocked=f"{blocked}. Here {said}" if blocked else "",
        estimate=area.estimate,
        low=area.low,
        high=area.high,
        threshold=p.threshold,
        baseline=0.5,
        p=area.p,
        layer=int(m.layer[cell]),
        step=m.steps[step],
        details={"accuracy": float(right.mean()), "usable_seeds": area.usable},
        token_ids=_ids(runs[0], family, cls),
        **_counts(m),
    )


def _replication(desk: Desk, p: Prediction, cls: str, family: str, runs: Sequence[Readings]) -> Draft:
    """Does every seed have a classifier by itself, each at a layer that it chooses by itself."""
    m = desk.masses(p, cls, family, runs)
    together = _classifier(desk, p, cls, family, runs)
    if together.estimate is None:
        return together
    step = _step(p, m)
    each = [evidence.measure(m.of_seed(i), step, p.emerges) for i in range(m.n_seeds)]
    clear = [e.clear(e.chosen, _bounds(p)) and not e.constant(e.chosen) for e in each]
    # One seed without it refutes replication, and there are as many chances for that as seeds: Bonferroni.
    level = 1 - (1 - permutation.LEVEL) / m.n_seeds
    again = [evidence.measure(e.masses, step, p.emerges, level=level) for e in each]
    gone = [e.absent(p.negligible) for e in again]
    pvalue = max(float(e.p(desk.permutations(p))[0][e.chosen]) for e in each)
    places = [int(m.layer[e.chosen]) for e in each]
    seeds = ", ".join(
        f"seed {r.seed} {100 * float(e.parts['strength'].estimate[e.chosen]):.0f} % at L{layer}"
        for r, e, layer in zip(runs, each, places, strict=True)
    )
    said = f"{sum(clear)} of {len(runs)} seeds have it alone ({seeds}); together {together.found}"
    numbers = {
        k: getattr(together, k) for k in ("estimate", "low", "high", "threshold", "baseline", "layer", "step")
    }
    return Draft(
        statistic=together.statistic,
        family=family,
        found=said,
        missing=said,
        holds=all(clear) and together.holds,
        refuted=any(gone),
        blocked=together.blocked,
        p=pvalue,
        details={"seeds_clear": clear, "seeds_absent": gone, "layers_by_seed": places} | together.details,
        token_ids=together.token_ids,
        onset=together.onset,
        **_counts(m),
        **numbers,
    )


def _probed(p: Prediction, cls: str, found: Probe, table: list[list[int]]) -> Draft:
    i, s = found.chosen, found.selectivity
    said = (
        f"a linear probe at L{found.layers[i]} has balanced accuracy {found.accuracy[i]:.0%}, control task "
        f"{found.control[i]:.0%}: selectivity {s.estimate[i]:.2f} [{s.low[i]:.2f}, {s.high[i]:.2f}]"
    )
    return Draft(
        statistic="selectivity",
        family=p.family,
        found=said,
        missing=said,
        holds=bool(s.low[i] >= p.threshold),
        refuted=bool((s.high < p.negligible).all()),
        blocked="" if found.n >= MIN_EVALUATED else f"{found.n} prompts of the class to judge on",
        threshold=p.threshold,
        baseline=0.0,
        p=found.p,
        layer=found.layers[i],
        step=0,
        n_prompts=found.n,
        n_seeds=1,
        details={
            "layers": list(found.layers),
            "accuracy": found.accuracy.tolist(),
            "control": found.control.tolist(),
            "selectivity": s.estimate.tolist(),
            "unseen": found.unseen,
            "confusion": table,
        },
        **_ends(s, i),
    )


def _either(drafts: Sequence[Draft]) -> Draft:
    """A claim about one family or another: the better one speaks, and its p pays for the choice."""
    best = max(drafts, key=lambda d: (d.holds, -(d.p if d.p is not None else 1.0), d.estimate or 0.0))
    return replace(
        best,
        p=None if best.p is None else min(1.0, best.p * len(drafts)),
        refuted=all(d.refuted for d in drafts),
        missing=best.missing if best.holds else "; ".join(f"{d.family}: {d.missing}" for d in drafts),
        details=best.details | {"families": {d.family: d.missing for d in drafts}},
    )


def _empty(p: Prediction, m: Masses, family: str, why: str) -> Draft:
    return Draft(_statistic(p, family), family, blocked=why, threshold=p.threshold, **_counts(m))


def _statistic(p: Prediction, family: str) -> str:
    """What the estimate is, and so its unit: a mass in [0, 1] unless it is named otherwise."""
    mass = "own-answer mass" if family == "answer" else "own-class mass"
    return {"growth": "growth of mass per 100 steps", "predicts correctness": "AUROC"}.get(p.test, mass)


def _counts(m: Masses) -> dict[str, Any]:
    return {"n_prompts": m.evaluated(), "n_seeds": m.n_seeds}


def _ends(i: permutation.Interval, cell: int, least: float = -np.inf, most: float = np.inf) -> dict[str, Any]:
    values = {"estimate": i.estimate[cell], "low": i.low[cell], "high": i.high[cell]}
    return {k: float(np.clip(v, least, most)) for k, v in values.items()}


def _ids(first: Readings, family: str, cls: str) -> tuple[int, ...]:
    if family == "answer":
        return tuple(int(i) for i in first.answer_ids)
    sets = first.token_sets.get(family.replace(" ", "_"), {})
    return tuple(sets.get(cls) or sorted({i for ids in sets.values() for i in ids}))


_TESTS = {
    "classifier": _classifier,
    "no classifier": _classifier,
    "growth": _growth,
    "predicts correctness": _correctness,
    "replication": _replication,
}
