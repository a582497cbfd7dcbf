"""`growth`: does own-class mass rise with the training steps, at the layer that is strongest in the end.

The slope over the checkpoints must lie above the threshold, and the order of the checkpoints must matter: p
is over orders of a run's checkpoints. The growth over all steps is negligible where its upper end is below
`negligible`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...analysis import evidence, intervals, permutation
from ...analysis.masses import MIN_EVALUATED
from ...readings.readings import EVALUATION
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked, percent, share

_STATISTIC = "growth of mass per 100 steps"


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The slope over the checkpoints with its interval, and the trend's p; three checkpoints at least."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m, _STATISTIC)
    if len(m.steps) < 3:
        return Assessment(effect, blocked=f"{len(m.steps)} checkpoints are no trend; three are needed")
    reason = measurements.undecidable(p, m)
    if not len(m.layer) or m.evaluated() < MIN_EVALUATED:
        return Assessment(effect, blocked=reason)
    cell = evidence.measure(m, len(m.steps) - 1, False).chosen
    own = np.moveaxis(m.own[:, :, m.half == EVALUATION, cell], 1, 0)
    slope = intervals.bootstrap(100 * permutation.slopes(own, m.steps)[..., None])
    rho, p_value = permutation.trend(own.mean(axis=2).T, measured.permutations(p))
    if np.ptp(own) == 0:
        reason = (
            reason or f"strength is the same at every checkpoint at L{m.layer[cell]}: no trend can be given"
        )
    span = (m.steps[-1] - m.steps[0]) / 100
    sentence = (
        f"at L{m.layer[cell]} own-class mass grows by {share(slope, 0)} per 100 steps, "
        f"{percent(slope.estimate[0] * span)} over {m.steps[-1]} steps, rank correlation {rho:.2f}"
    )
    return Assessment(
        effect=replace(
            measurements.with_interval(effect, slope, 0),
            baseline=0.0,
            p=p_value,
            layer=int(m.layer[cell]),
            step=m.steps[-1],
            token_ids=measured.token_ids(p, cls, family),
            details={"by_step": own.mean(axis=(1, 2)).tolist(), "steps": list(m.steps), "rho": rho},
        ),
        holds=bool(slope.low[0] > p.threshold),
        refuted=bool(slope.high[0] * span < p.negligible),
        blocked=blocked(reason, sentence),
        when_there=sentence,
        otherwise=sentence,
    )
