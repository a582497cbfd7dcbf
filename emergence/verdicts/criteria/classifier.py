"""`classifier` and `no classifier`: is there a classifier at some layer of the band.

There is one where, at layers that each half of the prompts chose for the other, every part of a classifier
lies above the threshold: own-class mass, what it has over the largest other class, what it has over the same
tokens on other classes' prompts and, where it must emerge, the growth of the weakest of these. There is none
where at every layer, in every seed, some part lies below `negligible`. `no classifier` is the same criterion;
`judging` swaps its outcomes.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from ...analysis import evidence, intervals, masses, permutation, power
from ...analysis.evidence import Absence, Evidence
from ...analysis.masses import Masses
from ...analysis.power import Needs
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment, Effect
from .sentences import blocked, part, percent, share

_COPIED_FROM = {"words": "glyphs"}
"""The family whose mass would be copying, where a family has one."""
_READ = {
    "words": "logit lens, last prompt token",
    "words anywhere": "logit lens, every position",
    "glyphs": "logit lens, last prompt token",
    "random words": "logit lens, last prompt token",
    "answer": "logit lens, where the answer's last token is predicted",
}
_KINDS = {
    "classifier": "a classifier",
    "bias": "a bias, no classifier (the mass is there whichever the prompt)",
    "copying": "copying, no classifier (the operator's glyph is read out, no word is)",
    "earlier": "no new classifier (the base model has as much already)",
    "absent": "no classifier",
    "unclear": "not decided",
}


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """Both sides: every part above `threshold` at the chosen layers; some part negligible at every layer."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m)
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    e = evidence.measure(m, measurements.step_index(p, m.steps), p.emerges)
    held = e.holds(measurements.presence_bound(p))
    # Without clear intervals no p decides anything: it is not computed, and counts as 1 among the others.
    p_there = float(e.p(measured.permutations(p))[e.chosen[0]].max()) if held[0] else None
    cell, absence = int(e.chosen[0, 0]), e.absence(p.negligible)
    there = p_there is not None and p_there < p.alpha
    kind = "classifier" if there else _kind(p, cls, family, measured, e, absence)
    details = _details(e, cell, kind) | {"ceiling": absence.high}
    if family == "words" and not p.any_step:
        details |= _confusion(p, measured, e.step, int(m.layer[cell]))
    if m.position is not None:
        details["position"] = int(m.position[cell])
    weakest = e.weakest(p.threshold)
    effect = replace(
        effect,
        baseline=float(m.own[:, 0, :, cell].mean()),
        layer=int(m.layer[cell]),
        step=_step(m, e, cell),
        token_ids=measured.token_ids(p, cls, family),
        details=details,
    )
    shown = replace(
        measurements.with_interval(effect, e.judged[weakest], 0, -1.0, 1.0),
        statistic=part(weakest, m.family),
        threshold=e.bound(weakest, p.threshold),
        p=p_there,
        onset=_onset(p, measured, e) if there and e.step and m.when is None else None,
    )
    sentence = _sentence(e, p, weakest)
    return Assessment(
        effect=shown,
        gone=absent_effect(effect, e, absence, p),
        holds=bool(held[0]),
        stands=int((held == held[0]).sum()),
        blocked=blocked(measurements.undecidable(p, m), sentence),
        not_there=m.confounded or _constant(e, cell),
        not_gone=measurements.few_seeds(p, m.n_seeds),
        when_there=sentence,
        when_gone=f"{_KINDS[kind if kind != 'unclear' else 'absent']}: {negligible(e, absence, p)}",
        otherwise=_undecided(e, absence, p, kind, sentence),
        needs=functools.partial(_needs, e, absence, p),
    )


def _constant(e: Evidence, cell: int) -> str:
    if not e.constant():
        return ""
    return f"every prompt reads the same at {e.masses.place(cell)}: no interval can be given"


def _step(m: Masses, e: Evidence, cell: int) -> int:
    return m.steps[e.step] if m.when is None else int(m.when[cell])


def absent_effect(effect: Effect, e: Evidence, absence: Absence, p: Prediction) -> Effect:
    """The part that speaks where absence is least sure, held against `negligible`."""
    m, cell = e.masses, absence.cell
    return replace(
        effect,
        statistic=part(absence.name, m.family),
        estimate=absence.estimate,
        low=absence.low,
        high=absence.high,
        threshold=p.negligible,
        baseline=float(m.own[:, 0, :, cell].mean()),
        p=float(absence.p.max()),
        layer=int(m.layer[cell]),
        step=_step(m, e, cell),
    )


def _kind(p: Prediction, cls: str, family: str, measured: Measurements, e: Evidence, absence: Absence) -> str:
    """What the mass that is there amounts to, where it is no classifier: a key of `_KINDS`."""
    cell, sure = e.strongest, intervals.ALPHA
    if intervals.bootstrap(e.parts[0].now[..., [cell]]).low[0] > p.threshold:
        lacking = {absence.names[i] for i in absence.part[:, cell]}
        if absence.p[:, cell].max() < sure:
            # Named for what is shown to be lacking: a bias only where discrimination is.
            return "earlier" if evidence.GAIN in lacking else "bias"
        return "unclear"
    if family in _COPIED_FROM:
        glyphs = evidence.measure(measured.masses(p, cls, _COPIED_FROM[family]), e.step, False)
        if glyphs.holds(measurements.presence_bound(p))[0]:
            return "copying"
    return "absent" if absence.p.max() < sure else "unclear"


def _onset(p: Prediction, measured: Measurements, there: Evidence) -> tuple[int | None, int] | None:
    """The checkpoints between which it was first detected; p not adjusted for other predictions."""
    m = there.masses

    def present(t: int) -> bool:
        if t == there.step:
            return True
        e = evidence.measure(m, t, p.emerges and t > 0)
        if not e.holds(measurements.presence_bound(p))[0]:
            return False
        return bool(e.p(measured.permutations(p))[e.chosen[0]].max() < p.alpha)

    return permutation.onset(present, m.steps)


def _sentence(e: Evidence, p: Prediction, weakest: str) -> str:
    """One clause with the part that decides, and strength beside it; the others are in the details."""
    m, (one, two) = e.masses, map(int, e.chosen[0])
    place = m.place(one)
    if one != two:
        place += f" and {m.place(two)} (each half of the prompts chose for the other)"
    bound = percent(e.bound(weakest, p.threshold))
    decides = f"at {place} {part(weakest, m.family)} is {share(e.judged[weakest], 0)}, against {bound}"
    if weakest == evidence.STRENGTH:
        return decides
    return f"{decides}; strength {share(e.judged[evidence.STRENGTH], 0)}"


def _undecided(e: Evidence, absence: Absence, p: Prediction, kind: str, sentence: str) -> str:
    """Both sides, the one that the claim is about first."""
    sides = [sentence]
    if absence.high >= p.negligible:
        sides.append(f"that there is none is not shown either: {_least_sure(e, absence, p)}")
    x = e.judged[e.weakest(measurements.presence_bound(p))]
    if p.negligible <= x.estimate[0] <= p.threshold:
        sides.append(
            f"between {percent(p.negligible)} and {percent(p.threshold)}: too little for one claim and too "
            "much for the other"
        )
    if p.test == "no classifier" and absence.high >= p.negligible:
        sides = [f"that there is none is not shown: {_least_sure(e, absence, p)}", sentence, *sides[2:]]
    return f"{_KINDS['copying' if kind == 'copying' else 'unclear']}: {'; '.join(sides)}"


def _needs(e: Evidence, absence: Absence, p: Prediction, alpha: float) -> tuple[str, Needs | None]:
    """What would decide the claim, if what there is is as large as it looks.

    Where it looks neither large enough nor negligible, twice the threshold is planted: no number of prompts
    decides what lies between the two bounds.
    """
    bound, n_seeds = measurements.presence_bound(p), e.masses.n_seeds
    weakest = e.judged[e.weakest(bound)].estimate[0]
    if weakest < p.negligible and absence.estimate < p.negligible:
        cells = e.least_sure(absence, alpha)
        found = power.needs(
            lambda s, n: power.power_gone(cells, p.negligible, s, n),
            measurements.seeds_that_may_do(p, n_seeds, absence=True),
        )
        return measurements.wanted("if there is as little as it looks", found, e.masses)
    names, values = e.where_judged()
    bounds, least = [e.bound(name, bound) for name in names], [e.judged[name].least for name in names]
    what = "if it is as large as it looks"
    if weakest <= bound:
        masses_ = [i for i, name in enumerate(names) if name != evidence.AGREES]
        values = power.planted(values[..., masses_], 2 * bound)
        bounds, least = [bounds[i] for i in masses_], [least[i] for i in masses_]
        what = f"if it were {percent(2 * bound)}"
    found = power.needs(
        lambda s, n: power.power_there(values, bounds, least, s, n),
        measurements.seeds_that_may_do(p, n_seeds, absence=False),
    )
    return measurements.wanted(what, found, e.masses)


def _least_sure(e: Evidence, absence: Absence, p: Prediction) -> str:
    return (
        f"at {e.masses.place(absence.cell)} {part(absence.name, e.masses.family)} is "
        f"{percent(absence.estimate)}, 95 % bound {percent(absence.high)}, against {percent(p.negligible)}"
    )


def negligible(e: Evidence, absence: Absence, p: Prediction) -> str:
    """One clause on what is too small everywhere, by which readout, at which position."""
    n = e.masses.n_seeds
    runs = "" if n == 1 else f" in each of {n} seeds"
    seeds = "" if p.arm == "base" or p.control else f"; {measurements.excluded(n)}"
    return (
        f"a part of it is below {percent(p.negligible)} at every layer of the band{runs} "
        f"({_READ[e.masses.family]}); least surely {_least_sure(e, absence, p)}{seeds}"
    )


def _details(e: Evidence, cell: int, kind: str) -> dict[str, Any]:
    """Arrays by layer, for the report; of random words, the largest set of each layer."""
    by_cell = evidence.by_cell(e)
    where, strength = e.masses.layer, by_cell[evidence.STRENGTH].estimate
    known = np.unique(where)
    best = [int(np.flatnonzero(where == i)[strength[where == i].argmax()]) for i in known]
    details: dict[str, Any] = {
        "kind": kind,
        "layers": known.tolist(),
        "chosen": e.masses.layer[e.chosen].tolist(),
        "copied": e.masses.copied,
        "matched": e.masses.matched,
    }
    for name, interval in by_cell.items():
        details[name] = {k: getattr(interval, k)[best].tolist() for k in ("estimate", "low", "high")}
    details["decided by"] = {
        name: {k: float(getattr(x, k)[0]) for k in ("estimate", "low", "high")}
        for name, x in e.judged.items()
    }
    if (areas := e.areas()) is not None:
        details |= {"auroc": float(areas[cell]), "auroc_by_layer": areas[best].tolist()}
    return details


def _confusion(p: Prediction, measured: Measurements, step: int, layer: int) -> dict[str, Any]:
    table, balanced = permutation.confusion(*masses.class_masses(measured.runs(p), p.style, step, layer))
    return {"confusion": table.tolist(), "balanced_accuracy": balanced}
