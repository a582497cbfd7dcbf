"""`classifier` and `no classifier`: is there a classifier at some layer of the band.

There is one at a layer where own-class mass is strong, tells the classes apart and, where it must emerge, has
grown since step 0: the interval of each of these parts lies above its bound. The layer is chosen on the
selection half. There is none where at every layer one of these parts at least is negligible. `no classifier`
is the same criterion; `judging` swaps its outcomes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ...analysis import evidence, intervals, masses, permutation
from ...analysis.evidence import Evidence
from ...analysis.masses import Masses
from ...readings.readings import EVALUATION
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked, percent, share

_COPIED_FROM = {"words": "glyphs"}
"""The family whose mass would be copying, where a family has one."""
_KINDS = {
    "classifier": "a classifier",
    "bias": "a bias, no classifier (the mass is there whichever the prompt)",
    "copying": "copying, no classifier (the operator's glyph is read out, no word is)",
    "earlier": "no new classifier (the base model has as much already)",
    "absent": "no classifier",
    "unclear": "not decided",
}


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """Strength, discrimination, place, and growth where it must emerge; `p` is of all layers of the band."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m)
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    e = evidence.measure(m, measurements.step_index(p, m.steps), p.emerges)
    holds, refuted = e.clear(e.chosen, measurements.bounds(p)), e.absent(p.negligible)
    cell = e.chosen if holds else e.strongest
    p_values, areas = e.p(measured.permutations(p))
    there = holds and bool(p_values[cell] < p.alpha)
    kind = "classifier" if there else _kind(p, cls, family, measured, e, refuted)
    details = _details(e, cell, kind, areas, p_values, p.threshold)
    if family == "words" and holds and not p.any_step:
        details |= _confusion(p, measured, e.step, int(m.layer[cell]))
    sentence = _sentence(e, cell)
    return Assessment(
        effect=replace(
            measurements.with_interval(effect, e.parts["strength"], cell, 0.0, 1.0),
            baseline=float(m.own[:, 0][:, m.half == EVALUATION, cell].mean()),
            p=float(p_values[cell]),
            layer=int(m.layer[cell]),
            step=m.steps[e.step] if m.when is None else int(m.when[cell]),
            onset=_onset(p, measured, m) if holds and e.step and m.when is None else None,
            token_ids=measured.token_ids(p, cls, family),
            details=details,
        ),
        holds=holds,
        refuted=refuted,
        blocked=blocked(measurements.undecidable(p, m) or _constant(e, cell), sentence),
        when_there=sentence,
        otherwise=f"{_KINDS[kind]}: {_negligible(e, cell, p) if refuted else sentence}",
    )


def _constant(e: Evidence, cell: int) -> str:
    if not e.constant(cell):
        return ""
    return f"every prompt reads the same at L{e.masses.layer[cell]}: no interval can be given"


def _kind(p: Prediction, cls: str, family: str, measured: Measurements, e: Evidence, refuted: bool) -> str:
    """What the mass that is there amounts to, where it is no classifier: a key of `_KINDS`."""
    cell, permutations = e.strongest, measured.permutations(p)
    if e.parts["strength"].low[cell] > p.threshold:
        parts = [e.parts[name] for name in ("apart", "elsewhere") if name in e.parts]
        if all(part.low[cell] > 0 for part in parts) and e.p(permutations)[0][cell] < p.alpha:
            return "earlier" if refuted else "unclear"
        return "bias"
    if family in _COPIED_FROM:
        glyphs = evidence.measure(measured.masses(p, cls, _COPIED_FROM[family]), e.step, False)
        if evidence.present(glyphs, measurements.bounds(p), p.alpha, permutations):
            return "copying"
    return "absent" if refuted else "unclear"


def _onset(p: Prediction, measured: Measurements, m: Masses) -> tuple[int | None, int] | None:
    """The checkpoints between which the classifier emerged; p not adjusted for other predictions."""
    present = [
        evidence.present(
            evidence.measure(m, t, p.emerges and t > 0),
            measurements.bounds(p),
            p.alpha,
            measured.permutations(p),
        )
        for t in range(len(m.steps))
    ]
    return permutation.onset(present, m.steps)


def _sentence(e: Evidence, cell: int) -> str:
    """One clause with every number that a classifier is judged by."""
    answer = e.masses.family == "answer"
    own, other = ("answer", "other problems' answers") if answer else ("class", "the other classes' tokens")
    clauses = [
        f"L{e.masses.layer[cell]} holds {share(e.parts['strength'], cell)} on the own {own}",
        f"{share(e.parts['apart'], cell)} more than on {other}",
    ]
    if "elsewhere" in e.parts:
        clauses.append(f"{share(e.parts['elsewhere'], cell)} more than on other classes' prompts")
    if "gain" in e.parts:
        clauses.append(f"{share(e.parts['gain'], cell)} of that gained since step 0")
    return ", ".join(clauses)


def _negligible(e: Evidence, cell: int, p: Prediction) -> str:
    """One clause on what is too small everywhere, and how large it would have to be to be seen."""
    at, strength = int(e.ceiling.argmax()), e.parts["strength"]
    return (
        f"the upper end is below {percent(p.negligible)} at every layer of the band, the largest "
        f"{percent(e.ceiling[at])} at L{e.masses.layer[at]}; most mass at L{e.masses.layer[cell]}, "
        f"{share(strength, cell)}; a mass of {percent(_detectable(e, cell, p.threshold))} would have shown"
    )


def _detectable(e: Evidence, cell: int, threshold: float) -> float:
    strength = e.parts["strength"]
    return intervals.detectable(threshold, float(strength.se[cell]), float(strength.df[cell]))


def _details(
    e: Evidence,
    cell: int,
    kind: str,
    areas: Float[np.ndarray, " cell"] | None,
    p_values: Float[np.ndarray, " cell"],
    threshold: float,
) -> dict[str, Any]:
    """Arrays by layer, for the report; of random words, the largest set of each layer."""
    where, strength = e.masses.layer, e.parts["strength"].estimate
    known = np.unique(where)
    best = [int(np.flatnonzero(where == i)[strength[where == i].argmax()]) for i in known]
    details: dict[str, Any] = {
        "kind": kind,
        "layers": known.tolist(),
        "ceiling": float(e.ceiling.max()),
        "detectable": _detectable(e, cell, threshold),
        "copied": e.masses.copied,
        "p_by_layer": p_values[best].tolist(),
    }
    for name, part in e.parts.items():
        details[name] = {k: getattr(part, k)[best].tolist() for k in ("estimate", "low", "high")}
    if areas is not None:
        details |= {"auroc": float(areas[cell]), "auroc_by_layer": areas[best].tolist()}
    return details


def _confusion(p: Prediction, measured: Measurements, step: int, layer: int) -> dict[str, Any]:
    table, balanced = permutation.confusion(*masses.class_masses(measured.runs(p), p.style, step, layer))
    return {"confusion": table.tolist(), "balanced_accuracy": balanced}
