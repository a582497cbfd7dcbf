"""`used`: does the answer depend on a part of the stream; `carries the operation`: on the class in it.

Between prompts with the same operands under another class the part is exchanged at the last token. What is
judged is the share of the log-odds (the source's answer against the base's) that this brings over, less what
changes of the same size bring over that say nothing of the class. It must exceed `threshold` and beat every
placebo; it is refuted where it is below `negligible` at every layer of the band in every seed.

For `carries the operation` the stream comes from a prompt of the source's class with *other* operands: what
it brings over of the answer to the own operands under that class, less what it brings over of that prompt's
answer.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...analysis import DEALS, carried, exchanges, pairs, power
from ...analysis.carried import USABLE, Carried
from ...analysis.intervals import LEVEL
from ...analysis.power import Needs
from ...config.settings import UNTRAINED
from ...readings.bands import layers
from ...readings.effects import OPERATION, PLACEBOS, WORDS, Effects
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment, Effect
from .sentences import blocked, percent, share

_WHAT = {
    "stream": "the stream",
    "words": "the plane of the class words",
    "class means": "the plane of the class means",
}


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The share that is carried, with its interval; p is over signs of pairs."""
    runs = measured.runs(p)
    bound, crossed = measurements.presence_bound(p), p.test == OPERATION
    statistic = (
        "share of the operation carried beyond the answer" if crossed else "share carried beyond placebos"
    )
    effect = Effect(statistic, family, threshold=bound, n_seeds=len(runs))
    step = 0 if p.arm in UNTRAINED else runs[0].steps[-1]
    effects = [run.effects[step] for run in runs if step in run.effects]
    at = layers(p.band, runs[0].n_layers)
    prompts = runs[0].prompts
    mine = exchanges.of_class(effects[0], prompts, cls) if effects else np.zeros(0, dtype=int)
    if crossed and len(mine):
        mine = mine[~np.isnan(effects[0].crossed_whole[mine, 1])]
    usable = carried.usable(effects, mine, crossed) if len(mine) else 0
    effect = replace(effect, n_prompts=len(mine))
    if reason := _unmeasured(p, effects, at, usable):
        return Assessment(effect, blocked=reason, unmeasured=True)
    deals = pairs.deals(prompts, effects[0].pairs[mine, 0], DEALS)
    found = (
        carried.of_operation(effects, mine, at, deals)
        if crossed
        else carried.of_part(effects, family, mine, at, deals)
    )
    return _assessment(p, cls, effect, found, effects, mine, step, measured.permutations(p))


def _unmeasured(p: Prediction, effects: list[Effects], at: tuple[int, ...], usable: int) -> str:
    if not effects:
        return "no intervention was made in this arm"
    if refused := effects[0].refused:
        return f"nothing could be exchanged: {refused}"
    if not at:
        return f"the model has no layer in band {p.band}"
    if usable < USABLE:
        return (
            f"the model says different things after the prompts in {usable} pairs of the class; at least "
            f"{USABLE} are needed"
        )
    return ""


def _assessment(
    p: Prediction,
    cls: str,
    effect: Effect,
    found: Carried,
    effects: list[Effects],
    mine: np.ndarray,
    step: int,
    m: int,
) -> Assessment:
    interval, bound = found.interval, measurements.presence_bound(p)
    held = interval.exceed(bound)
    chosen = found.chosen[0]
    layer = int(found.layer[chosen[0]])
    p_gone, worst, seed = found.gone(p.negligible)
    least = found.of_seed(seed, worst)
    few = f"speaks of {_runs(len(effects))} only: the claim is about training and needs {p.min_seeds} seeds"
    there = _when_there(p, found, layer, share(interval, 0, math.inf), percent(bound))
    gone = _when_gone(p, int(found.layer[worst]), share(least, 0, math.inf), len(effects))
    details = {
        "layers": found.layer.tolist(),
        "share": found.share.tolist(),
        "placebo": found.placebo.tolist(),
        "net": found.net.mean(axis=(1, 2)).tolist(),
    }
    effect = replace(effect, baseline=0.0, step=step, details=details)
    taken, left = _taken(effects, p, mine, found.layer)
    return Assessment(
        effect=replace(
            measurements.with_interval(effect, interval, 0),
            p=found.p_there(m),
            layer=layer,
        ),
        gone=replace(
            measurements.with_interval(effect, least, 0),
            threshold=p.negligible,
            p=p_gone,
            layer=int(found.layer[worst]),
        ),
        holds=bool(held[0]),
        stands=int((held == held[0]).sum()),
        blocked=blocked(few, there) if len(effects) < p.min_seeds else "",
        not_there=""
        if not found.beaten_by
        else (f"{found.beaten_by} of {PLACEBOS} placebos carry as much as the exchange itself"),
        not_gone=(
            measurements.few_seeds(p, len(effects))
            if taken
            else f"the exchange leaves {percent(left)} on the own words: it does not take the word away"
        ),
        when_there=there,
        when_gone=gone,
        needs=lambda left: measurements.wanted("if it is as it looks", _needs(p, found, len(mine), left)),
    )


def _needs(p: Prediction, found: Carried, pairs_: int, left: float) -> Needs | None:
    estimate, bound = float(found.interval.estimate[0]), measurements.presence_bound(p)
    absence, seeds = estimate <= bound, found.net.shape[1]
    test = (p.negligible - estimate, 1 - left) if absence else (estimate - bound, (1 + LEVEL) / 2)
    spread = power.Spread(float(found.interval.se[0]) ** 2, 0.0, pairs_, seeds)
    return power.needs(
        lambda s, n: power.power_by_error(spread, [test], s, n),
        measurements.seeds_that_may_do(p, seeds, absence),
    )


def _when_there(p: Prediction, found: Carried, layer: int, net: str, bound: str) -> str:
    cells = found.chosen[0]
    whole = percent(float(found.share[cells].mean()))
    if p.test == OPERATION:
        return (
            f"at L{layer} the stream of other operands carries {whole} of the operation, {net} more than of "
            f"its own answer, against {bound}"
        )
    most = percent(float(found.placebo[cells].mean(axis=0).max()))
    return (
        f"exchanging {_WHAT[p.family]} of L{layer} carries {whole} of the answer, {net} more than its "
        f"placebos (the best of {PLACEBOS}: {most}), against {bound}"
    )


def _when_gone(p: Prediction, layer: int, net: str, seeds: int) -> str:
    most = "where it is most" if p.arm in UNTRAINED or seeds == 1 else "in the seed where it is most"
    others = "" if p.arm in UNTRAINED else f"; {measurements.excluded(seeds)}"
    beyond = (
        f"the stream of L{layer} carries {net} more of the operation than of its own answer"
        if p.test == OPERATION
        else f"{_WHAT[p.family]} of L{layer} carries {net} more than its placebos"
    )
    return f"{beyond} {most}, against {percent(p.negligible)}{others}"


def _runs(n: int) -> str:
    return "this run" if n == 1 else f"these {n} runs"


def _taken(effects: list[Effects], p: Prediction, mine: np.ndarray, layer: np.ndarray) -> tuple[bool, float]:
    """Whether the exchange of the word plane took the own word away, and what it left at most of it."""
    if p.test == OPERATION or p.family != WORDS:
        return True, 0.0
    left = max(float(e.left[layer][:, mine].mean(axis=1).max()) for e in effects)
    return left < p.threshold, left
