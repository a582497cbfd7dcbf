"""`contrast`: does an arm hold another mass than a second arm where both are right equally often.

The statistic is the difference of own masses at matched accuracy of whole held-out answers, in either
direction (`analysis.matched`): each half of the prompts chooses the layer where it is largest and its sign,
and the other half is judged there. It is there where its lower end exceeds `threshold`. The arms are
equivalent where the difference is below `negligible` in size at every layer, in every seed, on either side
(two one-sided tests).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from ...analysis import intervals, masses, matched, power
from ...analysis.masses import Masses
from ...analysis.matched import Match, Side
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment, Effect
from .sentences import blocked, percent, share


@dataclass(frozen=True)
class _Equal:
    """Where the arms are surely alike: least surely at one cell of one seed, on one side."""

    seed: int
    cell: int
    values: Float[np.ndarray, " prompt"]
    """With the sign that makes them large there."""
    p: float


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The difference at equal accuracy with its interval, its bound where it is least surely small, its p."""
    m = measured.masses(p, cls, family)
    mass = "own-answer mass" if family == "answer" else "own-class mass"
    effect = measurements.effect_without_numbers(p, m, f"difference of {mass} at equal accuracy")
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    matches, seeds = _matches(p, cls, family, measured)
    effect = replace(effect, n_seeds=len(seeds))
    if not seeds:
        return Assessment(effect, blocked=f"{p.arm} and {p.against[0]} have no seed in common")
    if lacking := [seed for seed, found in zip(seeds, matches, strict=True) if found is None]:
        return Assessment(effect, blocked=_unmatched(p, lacking))
    found = [match for match in matches if match is not None]
    x = np.stack([match.difference for match in found])
    chosen = matched.choose(x, m.deals)
    interval = intervals.bootstrap(chosen.values)
    bound, layer = measurements.presence_bound(p), int(m.layer[chosen.cells[0, 0]])
    held = interval.low > bound
    equal = _least_surely_equal(x, found, p)
    sentence = _sentence(p, m, chosen, interval, found, mass)
    cell_p = matched.p_there(x, measured.permutations(p))[chosen.cells[0]].max() if held[0] else None
    effect = replace(
        effect,
        baseline=0.0,
        layer=layer,
        step=m.steps[-1],
        token_ids=measured.token_ids(p, cls, family),
        details={
            "layers": m.layer.tolist(),
            "by_layer": x.mean(axis=(0, 1)).tolist(),
            "accuracy": [match.accuracy for match in found],
            "sign": chosen.sign,
        },
    )
    size, alike = interval.estimate[0], _alike(p, m, equal, found[equal.seed].reach, mass, len(seeds))
    distance = max(size - bound, p.negligible - equal.values.mean())
    return Assessment(
        effect=replace(
            measurements.with_interval(effect, interval, 0, -1.0, 1.0),
            threshold=bound,
            p=None if cell_p is None else float(cell_p),
        ),
        gone=_gone(effect, equal, found[equal.seed].reach, p, m),
        holds=bool(held[0]),
        stands=int((held == held[0]).sum()),
        blocked=blocked(_few(p, len(seeds)), sentence),
        not_gone=measurements.few_seeds(p, len(seeds)),
        when_there=sentence,
        when_gone=alike,
        otherwise=f"{sentence}; {alike}" if size <= bound else sentence,
        needs=lambda _: measurements.wanted(
            "if it is as it looks",
            power.needs_by_error(m.n, max(len(seeds), p.min_seeds), distance, float(interval.se[0])),
            m,
        ),
    )


def _matches(
    p: Prediction, cls: str, family: str, measured: Measurements
) -> tuple[list[Match | None], list[int]]:
    """The match of each seed that both arms have."""
    claims = [p, replace(p, arm=p.against[0])]
    sides = []
    for claim in claims:
        runs, m = measured.runs(claim), measured.masses(claim, cls, family)
        right = masses.written(runs, claim.style, cls, family)
        sides.append({run.seed: Side(m.own[i], right[i]) for i, run in enumerate(runs)})
    seeds = sorted({*sides[0]} & {*sides[1]})
    return [matched.match(sides[0][seed], sides[1][seed]) for seed in seeds], seeds


def _unmatched(p: Prediction, seeds: list[int]) -> str:
    listed = ", ".join(map(str, seeds))
    return (
        f"seed{'s' * (len(seeds) > 1)} {listed}: of {p.arm} and {p.against[0]}, the one that ends higher has "
        "no two checkpoints on either side of the other's last accuracy; add checkpoints"
    )


def _few(p: Prediction, seeds: int) -> str:
    if seeds >= p.min_seeds:
        return ""
    return f"{seeds} seeds of both arms: the claim is about training and needs {p.min_seeds}"


def _least_surely_equal(
    x: Float[np.ndarray, "seed prompt cell"], found: list[Match], p: Prediction
) -> _Equal:
    worst: _Equal | None = None
    for seed, (own, match) in enumerate(zip(x, found, strict=True)):
        for values in (own, -own):
            each = intervals.p_at_least(values, p.negligible, match.reach)
            cell = int(each.argmax())
            if worst is None or each[cell] > worst.p:
                worst = _Equal(seed, cell, values[:, cell], float(each[cell]))
    assert worst is not None
    return worst


def _gone(effect: Effect, equal: _Equal, reach: float, p: Prediction, m: Masses) -> Effect:
    return replace(
        effect,
        estimate=float(equal.values.mean()),
        low=intervals.lower(equal.values, intervals.ALPHA / 2, -reach),
        high=intervals.upper(equal.values, intervals.ALPHA, reach),
        threshold=p.negligible,
        p=equal.p,
        layer=int(m.layer[equal.cell]),
    )


def _sentence(
    p: Prediction,
    m: Masses,
    chosen: matched.Chosen,
    interval: intervals.Interval,
    found: list[Match],
    mass: str,
) -> str:
    more, less = (p.arm, p.against[0]) if chosen.sign >= 0 else (p.against[0], p.arm)
    one, two = (int(m.layer[cell]) for cell in chosen.cells[0])
    place = f"L{one}" if one == two else f"L{one} and L{two} (each half of the prompts chose for the other)"
    disagree = "" if chosen.sign else ", the halves disagree which arm holds more"
    level = ", ".join(f"{match.accuracy:.0%}" for match in found)
    return (
        f"at {place} {more} holds {share(interval, 0)} more {mass} than {less} where both write {level} of "
        f"the answers exactly, against {percent(measurements.presence_bound(p))}{disagree}"
    )


def _alike(p: Prediction, m: Masses, equal: _Equal, reach: float, mass: str, n_seeds: int) -> str:
    high = intervals.upper(equal.values, intervals.ALPHA, reach)
    return (
        f"{p.arm} and {p.against[0]}, at equal accuracy: {mass} differs by less than "
        f"{percent(p.negligible)} at every layer of the band; least surely at L{m.layer[equal.cell]}, "
        f"{percent(equal.values.mean())}, 95 % bound {percent(high)}; {measurements.excluded(n_seeds)}"
    )
