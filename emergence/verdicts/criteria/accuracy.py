"""`accuracy gain` and `no accuracy gain`: are more whole answers right at the end than where reward began.

The gain of a prompt is 1, 0 or -1: what the model wrote after the last update, less what it wrote at the
switch (`Readings.switch`; step 0 for an arm without one). It is there where its lower end exceeds
`threshold`, and negligible where its upper bound is below `negligible` in every seed: a loss is no gain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...analysis import intervals, masses, matched, power
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked, percent, share

_STATISTIC = "gain of accuracy"


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The gain with its interval, its bound in the seed where it is largest, and its p."""
    runs, m = measured.runs(p), measured.masses(p, cls, "words")
    effect = measurements.effect_without_numbers(p, m, _STATISTIC)
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    right, start = masses.written(runs, p.style, cls, "words"), runs[0].switch
    if start not in m.steps or np.isnan(right[:, [m.steps.index(start), -1]]).any():
        return Assessment(effect, blocked=f"the model was not left to answer at step {start}")
    first = m.steps.index(start)
    gained = (right[:, -1] - right[:, first])[..., None]
    interval, bound = intervals.bootstrap(gained), measurements.presence_bound(p)
    p_gone = [float(intervals.p_at_least(x, p.negligible)[0]) for x in gained]
    worst = int(np.argmax(p_gone))
    most = gained[worst][:, 0]
    before, after = right[:, first].mean(), right[:, -1].mean()
    path = f"{percent(before)} of answers are right at step {start}, {percent(after)} at step {m.steps[-1]}"
    sentence = f"{path}: a gain of {share(interval, 0)}, against {percent(bound)}"
    high = intervals.upper(most, intervals.ALPHA)
    gone = replace(
        effect,
        estimate=float(most.mean()),
        low=intervals.lower(most, intervals.ALPHA / 2, -1.0),
        high=high,
        threshold=p.negligible,
        p=p_gone[worst],
    )
    there = measurements.with_interval(effect, interval, 0, -1.0, 1.0)
    distance = max(interval.estimate[0] - bound, p.negligible - interval.estimate[0])
    return Assessment(
        effect=replace(
            there,
            threshold=bound,
            baseline=float(before),
            step=m.steps[-1],
            p=float(matched.p_there(gained, measured.permutations(p))[0]),
            details={"by_step": right.mean(axis=(0, 2)).tolist(), "steps": list(m.steps), "from": start},
        ),
        gone=replace(gone, baseline=float(before), step=m.steps[-1]),
        holds=bool(interval.low[0] > bound),
        blocked=blocked(measurements.undecidable(p, m), sentence),
        not_gone=measurements.few_seeds(p, m.n_seeds),
        when_there=sentence,
        when_gone=(
            f"{path}: a gain of {percent(most.mean())} in the seed where it is largest, 95 % bound "
            f"{percent(high)}, against {percent(p.negligible)}; {measurements.excluded(m.n_seeds)}"
        ),
        otherwise=sentence,
        needs=lambda _: measurements.wanted(
            "if it is as it looks",
            power.needs_by_error(m.n, max(m.n_seeds, p.min_seeds), distance, float(interval.se[0])),
            m,
        ),
    )
