"""`probe`: is the class linearly decodable from the base model's streams, in forms it was not trained on.

Selectivity (balanced accuracy in those forms, minus that of the control task) must exceed `threshold` at the
layer that was chosen within the selection half; it is refuted where it is below `negligible` at every layer
of the band.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import special

from ...analysis import power, probes
from ...analysis.pairs import ENOUGH
from ...analysis.power import Needs
from ...readings.bands import layers
from ...readings.readings import SELECTION
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment, Effect

_STATISTIC = "selectivity across forms"


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """Selectivity at the chosen layer with its interval; p is over permuted labels."""
    bound = measurements.presence_bound(p)
    effect = Effect(_STATISTIC, family, threshold=bound)
    if reason := _unmeasured(p, measured):
        return Assessment(effect, blocked=reason)
    fitted = measured.probes(p)
    e = probes.evaluate(fitted, cls, measured.permutations(p))
    i, s = e.chosen, e.selectivity
    forms = ", ".join(probes.other_forms(fitted.readings.prompts, p.style))
    sentence = (
        f"a linear probe at L{e.layers[i]}, trained on {p.style} prompts, has balanced accuracy "
        f"{e.accuracy[i]:.0%} on {forms} ones, control task {e.control[i]:.0%}: selectivity "
        f"{s.estimate[i]:z.2f} [{s.low[i]:z.2f}, {s.high[i]:z.2f}], against {bound:.2f}"
    )
    effect = replace(
        effect,
        baseline=0.0,
        step=0,
        n_prompts=e.n,
        n_seeds=1,
        details={
            "layers": list(e.layers),
            "accuracy": e.accuracy.tolist(),
            "control": e.control.tolist(),
            "selectivity": s.estimate.tolist(),
            "own form": fitted.own_form.tolist(),
            "unseen": e.unseen,
            "confusion": fitted.confusion(i).tolist(),
        },
    )
    se = np.maximum(s.se, 1 / (e.n + 1))  # hits that are all alike have no spread
    p_gone = special.stdtr(s.df, (s.estimate - p.negligible) / se)
    j = int(p_gone.argmax())

    def needs(left: float) -> tuple[str, Needs | None]:
        there = bool(s.estimate[i] > bound)
        test = (s.estimate[i] - bound, 0.975) if there else (p.negligible - s.estimate[j], 1 - left)
        spread = power.Spread(float(se[i if there else j]) ** 2, 0.0, 2 * e.n, 1)
        found = power.needs(lambda _, n: power.power_by_error(spread, [test], 1, n), (1,))
        return measurements.wanted("if it is as it looks", found)

    return Assessment(
        effect=replace(measurements.with_interval(effect, s, i), p=e.p, layer=e.layers[i]),
        gone=replace(
            measurements.with_interval(effect, s, j),
            threshold=p.negligible,
            p=float(p_gone[j]),
            layer=e.layers[j],
        ),
        holds=bool(s.low[i] > bound),
        blocked="" if e.n >= ENOUGH // 2 else f"{e.n} prompts of the class to judge on",
        unmeasured=e.n < ENOUGH // 2,
        when_there=sentence,
        needs=needs,
        when_gone=(
            f"in forms that it was not trained on, a linear probe has a selectivity below {p.negligible:.2f} "
            f"at every layer of the band, the largest at L{e.layers[j]}: {s.estimate[j]:z.2f} "
            f"[{s.low[j]:z.2f}, {s.high[j]:z.2f}]"
        ),
    )


def _unmeasured(p: Prediction, measured: Measurements) -> str:
    """Why no probe can be fitted; empty where one can."""
    first = measured.runs(p)[0]
    prompts = [q for q in first.prompts if q.style == p.style]
    if not probes.has_control(prompts):
        return "these prompts have no operands, so there is no control task to compare a probe with"
    if not probes.other_forms(first.prompts, p.style):
        return (
            f"{p.style} is the only style that was read: every network has the class there, for the prompt "
            "says it; add a style to read_styles"
        )
    if not layers(p.band, first.n_layers):
        return f"the model has no layer in band {p.band}"
    fewest = min(sum(q.cls == c and q.half == SELECTION for q in prompts) for c in first.classes)
    if fewest < probes.FOLDS:
        return f"{fewest} prompts of a class to train a probe on; at least {probes.FOLDS} are needed"
    return ""
