"""`predicts correctness`: is a prompt with more own-answer mass answered right more often.

The AUROC of mass for correctness, prompt by prompt, at the layer that was chosen for strength; chance is 0.5.
A seed in which all answers are right, or all wrong, says nothing and counts as no seed.
"""

from __future__ import annotations

from dataclasses import replace

from ...analysis import evidence, masses, permutation
from ...analysis.masses import MIN_EVALUATED
from ...readings.readings import EVALUATION
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The AUROC with its interval and permutation p."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m, "AUROC")
    reason = measurements.undecidable(p, m)
    if not len(m.layer) or m.evaluated() < MIN_EVALUATED:
        return Assessment(effect, blocked=reason)
    step, here = measurements.step_index(p, m.steps), m.half == EVALUATION
    cell = evidence.measure(m, step, False).chosen
    right = masses.correct(measured.runs(p), p.style, cls, step)[:, here]
    area = permutation.predicts(m.own[:, step][:, here, cell], right, measured.permutations(p))
    if area is None:
        all_ = "right" if right.any() else "wrong"
        return Assessment(effect, blocked=f"all answers are {all_}: nothing to predict")
    if area.usable < p.min_seeds:
        reason = (
            reason or f"all answers are right, or all wrong, in all but {area.usable} of {m.n_seeds} runs"
        )
    sentence = (
        f"at L{m.layer[cell]} own-answer mass tells right from wrong answers with AUROC {area.estimate:.2f} "
        f"[{area.low:.2f}, {area.high:.2f}]; {right.mean():.0%} are right"
    )
    return Assessment(
        effect=replace(
            effect,
            estimate=area.estimate,
            low=area.low,
            high=area.high,
            baseline=0.5,
            p=area.p,
            layer=int(m.layer[cell]),
            step=m.steps[step],
            token_ids=measured.token_ids(p, cls, family),
            details={"accuracy": float(right.mean()), "usable_seeds": area.usable},
        ),
        holds=area.low > p.threshold,
        refuted=area.high < p.negligible,
        blocked=blocked(reason, sentence),
        when_there=sentence,
        otherwise=sentence,
    )
