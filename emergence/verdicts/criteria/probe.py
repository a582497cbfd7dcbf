"""`probe`: is the class linearly decodable from the base model's streams, more than a control task is.

Selectivity (accuracy minus that of the control task) must reach the threshold at the layer that was chosen
within the selection half; it is refuted where it is negligible at every layer of the band.
"""

from __future__ import annotations

from dataclasses import replace

from ...analysis import probes
from ...analysis.masses import MIN_EVALUATED
from ...readings.readings import SELECTION
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction, layers
from ..verdict import Assessment, Effect

_STATISTIC = "selectivity"


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """Selectivity at the chosen layer with its interval; p is over permuted labels."""
    effect = Effect(_STATISTIC, family, threshold=p.threshold)
    if reason := _unmeasured(p, measured):
        return Assessment(effect, blocked=reason)
    fitted = measured.probes(p)
    e = probes.evaluate(fitted, cls, measured.permutations(p))
    i, s = e.chosen, e.selectivity
    sentence = (
        f"a linear probe at L{e.layers[i]} has balanced accuracy {e.accuracy[i]:.0%}, control task "
        f"{e.control[i]:.0%}: selectivity {s.estimate[i]:.2f} [{s.low[i]:.2f}, {s.high[i]:.2f}]"
    )
    return Assessment(
        effect=replace(
            measurements.with_interval(effect, s, i),
            baseline=0.0,
            p=e.p,
            layer=e.layers[i],
            step=0,
            n_prompts=e.n,
            n_seeds=1,
            details={
                "layers": list(e.layers),
                "accuracy": e.accuracy.tolist(),
                "control": e.control.tolist(),
                "selectivity": s.estimate.tolist(),
                "unseen": e.unseen,
                "confusion": fitted.confusion(i).tolist(),
            },
        ),
        holds=bool(s.low[i] >= p.threshold),
        refuted=bool((s.high < p.negligible).all()),
        blocked="" if e.n >= MIN_EVALUATED else f"{e.n} prompts of the class to judge on",
        when_there=sentence,
        otherwise=sentence,
    )


def _unmeasured(p: Prediction, measured: Measurements) -> str:
    """Why no probe can be fitted; empty where one can."""
    first = measured.runs(p)[0]
    prompts = [q for q in first.prompts if q.style == p.style]
    if not probes.has_control(prompts):
        return "these prompts have no operands, so there is no control task to compare a probe with"
    if not layers(p.band, first.n_layers):
        return f"the model has no layer in band {p.band}"
    fewest = min(sum(q.cls == c and q.half == SELECTION for q in prompts) for c in first.classes)
    if fewest < probes.FOLDS:
        return f"{fewest} prompts of a class to train a probe on; at least {probes.FOLDS} are needed"
    return ""
