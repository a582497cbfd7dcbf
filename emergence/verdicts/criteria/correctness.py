"""`predicts correctness`: is a prompt with more own-answer mass answered right more often.

The AUROC of mass for correctness, prompt by prompt, at the layers that the halves chose for strength; chance
is 0.5. A seed in which hardly any answer is right, or hardly any wrong, says nothing and counts as no seed.
"""

from __future__ import annotations

from dataclasses import replace

from scipy import special

from ...analysis import evidence, masses, permutation, power
from ...analysis.permutation import FEWEST
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from .sentences import blocked


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The AUROC with its interval and permutation p."""
    m = measured.masses(p, cls, family)
    effect = measurements.effect_without_numbers(p, m, "AUROC")
    if empty := measurements.unmeasured(p, m):
        return Assessment(effect, blocked=empty)
    step = measurements.step_index(p, m.steps)
    cells, right = evidence.cells_of_strength(m, step), masses.correct(measured.runs(p), p.style, cls, step)
    score = evidence.at(m.own[:, step], cells)
    area = permutation.predicts(score[..., 0], right, m.deals[0], measured.permutations(p))
    if area is None:
        fewer = min(right.sum(), (~right).sum())
        which = "right" if right.mean() > 0.5 else "wrong"
        many = f"all answers are {which}" if not fewer else f"nearly all answers are {which}"
        return Assessment(effect, blocked=f"{many}: nothing to predict")
    reason = measurements.undecidable(p, m)
    if area.usable < p.min_seeds:
        reason = reason or (
            f"fewer than {FEWEST} answers are right, or wrong, in all but {area.usable} of {m.n_seeds} runs"
        )
    bound = measurements.presence_bound(p)
    areas = [permutation.area(score[..., d], right, half) for d, half in enumerate(m.deals)]
    held = [a is not None and a.low > bound for a in areas]
    layer = int(m.layer[cells[0, 0]])
    sentence = (
        f"at L{layer} own-answer mass tells right from wrong answers with AUROC {area.estimate:.2f} "
        f"[{area.low:.2f}, {area.high:.2f}], against {bound:.2f}; {right.mean():.0%} are right"
    )
    effect = replace(
        effect,
        estimate=area.estimate,
        low=area.low,
        high=area.high,
        baseline=0.5,
        layer=layer,
        step=m.steps[step],
        token_ids=measured.token_ids(p, cls, family),
        details={"accuracy": float(right.mean()), "usable_seeds": area.usable},
    )
    p_gone = float(special.stdtr(area.df, (area.estimate - p.negligible) / max(area.se, 1e-9)))
    return Assessment(
        effect=replace(effect, threshold=bound, p=area.p),
        gone=replace(effect, threshold=p.negligible, p=p_gone),
        holds=held[0],
        stands=sum(h == held[0] for h in held),
        blocked=blocked(reason, sentence),
        not_gone=measurements.few_seeds(p, area.usable),
        when_there=sentence,
        when_gone=sentence.replace(f"against {bound:.2f}", f"below {p.negligible:.2f}"),
        otherwise=sentence,
        needs=lambda _: measurements.wanted(
            "if it is as it looks",
            power.needs_by_error(
                m.n,
                max(m.n_seeds, p.min_seeds),
                max(area.estimate - bound, p.negligible - area.estimate),
                area.se,
            ),
        ),
    )
