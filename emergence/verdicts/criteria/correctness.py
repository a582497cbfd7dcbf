"""`predicts correctness`: is a prompt with more own-answer mass answered right more often.

The AUROC of mass for correctness, prompt by prompt, at the layers that the halves chose for strength; chance
is 0.5. It is taken at the checkpoint where most nearly half of the answers are right: where all are, there is
nothing to predict. A seed in which hardly any answer is right, or hardly any wrong, counts as no seed.

With `against` the statistic is the gain over other arms: every model answers rightly more often where its own
middle layers hold the answer, also one that was never trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from ...analysis import evidence, intervals, masses, permutation, power
from ...analysis.masses import Masses
from ...analysis.permutation import FEWEST, Area
from ...analysis.power import Needs
from ...config.settings import UNTRAINED
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked

_HALF = 0.5
"""The AUROC of a mass that predicts nothing."""


@dataclass(frozen=True)
class _Arm:
    """Mass and correctness of one arm at the checkpoint where it is judged."""

    m: Masses
    step: int
    score: Float[np.ndarray, "seed prompt deal"]
    right: Bool[np.ndarray, "seed prompt"]
    layer: int

    def area(self, deal: int) -> Area | None:
        """The AUROC in one deal of the prompts."""
        return permutation.area(self.score[..., deal], self.right, self.m.deals[deal])


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The AUROC, or its gain, with interval and p."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m, "gain of AUROC" if p.against else "AUROC")
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    own = _arm(p, cls, m, measured)
    area = permutation.predicts(own.score[..., 0], own.right, m.deals[0], measured.permutations(p))
    if area is None:
        fewer = min(own.right.sum(), (~own.right).sum())
        which = "right" if own.right.mean() > 0.5 else "wrong"
        many = f"all answers are {which}" if not fewer else f"nearly all answers are {which}"
        return Assessment(effect, blocked=f"{many}: nothing to predict")
    reason = measurements.undecidable(p, m)
    if area.usable < p.min_seeds:
        reason = reason or (
            f"fewer than {FEWEST} answers are right, or wrong, in all but {area.usable} of {m.n_seeds} runs"
        )
    untaught = {arm: replace(p, arm=arm) for arm in p.against}
    others = {arm: _arm(q, cls, measured.masses(q, cls, family), measured) for arm, q in untaught.items()}
    deals = range(len(m.deals))
    gains = [_gain(own.area(d), [other.area(d) for other in others.values()]) for d in deals]
    gain, bound = gains[0], measurements.presence_bound(p)
    assert gain is not None
    held = [g is not None and g.low > bound for g in gains]
    chance = 0.0 if p.against else _HALF
    p_chance = float(special.stdtr(gain.df, -(gain.estimate - chance) / max(gain.se, 1e-9)))
    sentence = _sentence(own, area, gain, {a: other.area(0) for a, other in others.items()}, bound)
    effect = replace(
        effect,
        estimate=gain.estimate,
        low=gain.low,
        high=gain.high,
        baseline=chance,
        layer=own.layer,
        step=m.steps[own.step],
        token_ids=measured.token_ids(p, cls, family),
        details={"accuracy": float(own.right.mean()), "usable_seeds": area.usable, "auroc": area.estimate},
    )
    p_gone = float(special.stdtr(gain.df, (gain.estimate - p.negligible) / max(gain.se, 1e-9)))
    return Assessment(
        effect=replace(effect, threshold=bound, p=max(area.p, p_chance) if p.against else area.p),
        gone=replace(effect, threshold=p.negligible, p=p_gone),
        holds=held[0],
        stands=sum(h == held[0] for h in held),
        blocked=blocked(reason, sentence),
        not_gone=measurements.few_seeds(p, area.usable),
        when_there=sentence,
        when_gone=sentence.replace(f"against {bound:.2f}", f"below {p.negligible:.2f}"),
        otherwise=sentence,
        needs=lambda left: measurements.wanted("if it is as it looks", _needs(p, m, gain, left), m),
    )


def _needs(p: Prediction, m: Masses, gain: Area, left: float) -> Needs | None:
    bound, level = measurements.presence_bound(p), (1 + intervals.LEVEL) / 2
    absence = gain.estimate <= bound
    tests = [(p.negligible - gain.estimate, 1 - left)] if absence else [(gain.estimate - bound, level)]
    if p.against and not absence:
        tests.append((gain.estimate, 1 - p.alpha * left / intervals.ALPHA))
    spread = power.Spread(gain.noise, gain.between, m.n, gain.usable)
    return power.needs(
        lambda s, n: power.power_by_error(spread, tests, s, n),
        measurements.seeds_that_may_do(p, m.n_seeds, absence),
    )


def _arm(p: Prediction, cls: str, m: Masses, measured: Measurements) -> _Arm:
    runs = measured.runs(p)
    every = [masses.correct(runs, p.style, cls, t) for t in range(len(m.steps))]
    step = 0 if p.arm in UNTRAINED else _half_learned([float(right.mean()) for right in every])
    cells = evidence.cells_of_strength(m, step)
    return _Arm(m, step, evidence.at(m.own[:, step], cells), every[step], int(m.layer[cells[0, 0]]))


def _half_learned(shares: Sequence[float]) -> int:
    """The checkpoint after step 0 whose share of right answers is nearest to a half; the last of equals."""
    return min(range(1, len(shares)), key=lambda t: (abs(shares[t] - 0.5), -t), default=0)


def _gain(own: Area | None, others: Sequence[Area | None]) -> Area | None:
    """What the own AUROC has over the largest of the others, as their intervals have it."""
    if own is None or not others:
        return own
    most = max((a for a in others if a), key=lambda a: a.estimate, default=None)
    if most is None or most.estimate < _HALF:  # nothing to predict there, or nothing that predicts
        most = replace(own, estimate=_HALF, noise=0.0, between=0.0)
    noise, between, df = own.noise + most.noise, own.between + most.between, min(own.df, most.df)
    reach = float(special.stdtrit(df, (1 + intervals.LEVEL) / 2)) * math.sqrt(noise + between)
    gain = own.estimate - most.estimate
    return replace(
        own, estimate=gain, low=gain - reach, high=gain + reach, noise=noise, between=between, df=df
    )


def _sentence(own: _Arm, area: Area, gain: Area, others: dict[str, Area | None], bound: float) -> str:
    step = own.m.steps[own.step]
    shown = f"AUROC {area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]"
    tells = f"at L{own.layer} own-answer mass tells right from wrong answers with {shown}"
    right = f"{own.right.mean():.0%} are right at step {step}"
    if not others:
        return f"{tells}, against {bound:.2f}; {right}"
    said = ", ".join(
        f"{arm} {other.estimate:.2f}" if other else f"{arm} nothing to predict"
        for arm, other in others.items()
    )
    gained = f"gain {gain.estimate:z.2f} [{gain.low:z.2f}, {gain.high:z.2f}], against {bound:.2f}"
    return f"{tells} ({said}): {gained}; {right}"
