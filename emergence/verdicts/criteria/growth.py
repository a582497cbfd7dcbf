"""`growth`: does own-class mass rise with the training steps, at the layer that is strongest in the end.

Growth is the least-squares slope over the checkpoints, times the steps of the whole run: 30 % to 55 % in a
line is .25. It is there where its lower end exceeds `threshold` and the order of the checkpoints matters (p
is over orders of a run's checkpoints), and negligible where its upper bound is below `negligible` in every
seed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ...analysis import evidence, intervals, permutation, power
from ...analysis.power import Needs
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked, percent, share

_STATISTIC = "growth of mass over the run"


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The growth with its interval, and the trend's p; three checkpoints at least."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m, _STATISTIC)
    if len(m.steps) < 3:
        return Assessment(effect, blocked=f"{len(m.steps)} checkpoints are no trend; three are needed")
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    cells = evidence.cells_of_strength(m, len(m.steps) - 1)
    own = np.stack([evidence.at(m.own[:, t], cells) for t in range(len(m.steps))])  # [step seed prompt deal]
    weights = _weights(m.steps)
    grown = np.tensordot(weights, own, axes=(0, 0))
    most = float(np.maximum(weights, 0).sum())
    interval = intervals.judge(grown, -most)
    rho, p_value = permutation.trend(own[..., 0].mean(axis=2).T, measured.permutations(p))
    bound = measurements.presence_bound(p)
    held = interval.exceed(bound)
    layer = int(m.layer[cells[0, 0]])
    p_gone = [float(intervals.p_at_least(x[:, :1], p.negligible, most)[0]) for x in grown]
    worst = int(np.argmax(p_gone))
    sentence = (
        f"at L{layer} own-class mass grows by {share(interval, 0)} over {m.steps[-1]} steps, against "
        f"{percent(bound)}; rank correlation {rho:z.2f}"
    )
    same = bool(np.ptp(own[..., 0]) == 0)
    effect = replace(
        effect,
        baseline=0.0,
        layer=layer,
        step=m.steps[-1],
        token_ids=measured.token_ids(p, cls, family),
        details={"by_step": own[..., 0].mean(axis=(1, 2)).tolist(), "steps": list(m.steps), "rho": rho},
    )
    alpha = intervals.ALPHA
    high = intervals.upper(grown[worst][:, 0], alpha, most)
    low = intervals.lower(grown[worst][:, 0], alpha / 2, -most)
    estimate = float(grown[worst][:, 0].mean())

    def needs(left: float) -> tuple[str, Needs | None]:
        x, absence = grown[..., 0], bool(interval.estimate[0] < p.negligible)
        seeds = measurements.seeds_that_may_do(p, m.n_seeds, absence)
        if absence:
            found = power.needs(lambda s, n: power.power_gone([(x, left, most)], p.negligible, s, n), seeds)
            return measurements.wanted("if it grows as little as it looks", found, m)
        lift = bool(interval.estimate[0] <= bound)
        values = power.planted(x[..., None], 2 * bound) if lift else x[..., None]
        found = power.needs(lambda s, n: power.power_there(values, [bound], [-most], s, n), seeds)
        what = f"if it grew by {percent(2 * bound)}" if lift else "if it grows as much as it looks"
        return measurements.wanted(what, found, m)

    return Assessment(
        effect=replace(measurements.with_interval(effect, interval, 0), threshold=bound, p=p_value),
        gone=replace(effect, estimate=estimate, low=low, high=high, threshold=p.negligible, p=p_gone[worst]),
        holds=bool(held[0]),
        stands=int((held == held[0]).sum()),
        blocked=blocked(measurements.undecidable(p, m), sentence),
        not_there=f"strength is the same at every checkpoint at L{layer}: no trend can be given" * same,
        not_gone=measurements.few_seeds(p, m.n_seeds),
        needs=needs,
        when_there=sentence,
        when_gone=(
            f"at L{layer} own-class mass grows by {percent(estimate)} over {m.steps[-1]} steps in the seed "
            f"where it grows most, 95 % bound {percent(high)}, against {percent(p.negligible)}; "
            f"{measurements.excluded(m.n_seeds)}"
        ),
    )


def _weights(steps: tuple[int, ...]) -> Float[np.ndarray, " step"]:
    """What each checkpoint counts for in the least-squares growth over all steps."""
    return permutation.slopes(np.eye(len(steps)), steps) * (steps[-1] - steps[0])
