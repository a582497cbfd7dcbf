"""`replication`: has every seed a classifier by itself, at layers that it chooses by itself.

The numbers are those of the seed where it is least clear; p is the largest of the seeds' own. One seed that
is shown to lack it refutes replication: there are as many chances for that as seeds (Bonferroni).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...analysis import evidence
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from . import classifier
from .sentences import blocked, part, percent, share


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The criterion `classifier` for each of the seeds."""
    together = classifier.assess(p, cls, family, measured)
    if together.effect.estimate is None:
        return together
    m = measured.masses(p, cls, family)
    step = measurements.step_index(p, m.steps)
    each = [evidence.measure(m.of_seed(i), step, p.emerges) for i in range(m.n_seeds)]
    clear = np.stack([e.holds(p.threshold) for e in each])
    held = np.asarray(clear.all(axis=0))
    weakest = [e.weakest(p.threshold) for e in each]
    margins = [e.judged[k].low[0] - e.bound(k, p.threshold) for e, k in zip(each, weakest, strict=True)]
    least = int(np.argmin(margins))
    e, name = each[least], weakest[least]
    absences = [x.absence(p.negligible) for x in each]
    p_absent = [float(a.p.max()) * m.n_seeds for a in absences]
    lacking = int(np.argmin(p_absent))
    seeds = [run.seed for run in measured.runs(p)]
    listed = ", ".join(
        f"seed {seed} {percent(x.judged[evidence.STRENGTH].estimate[0])} at L{m.layer[x.chosen[0, 0]]}"
        for seed, x in zip(seeds, each, strict=True)
    )
    sentence = (
        f"{int(clear[:, 0].sum())} of {m.n_seeds} seeds have it alone (strength: {listed}); least clearly "
        f"seed {seeds[least]}, where {part(name, m.family)} is {share(e.judged[name], 0)}, against "
        f"{percent(e.bound(name, p.threshold))}"
    )
    by_seed = {
        "seeds_clear": clear[:, 0].tolist(),
        "seeds_absent": [x < 0.05 for x in p_absent],
        "layers_by_seed": [int(m.layer[x.chosen[0, 0]]) for x in each],
    }
    effect = replace(together.effect, details=by_seed | together.effect.details)
    permutations = measured.permutations(p)
    p_there = max(float(x.p(permutations)[x.chosen[0]].max()) for x in each) if held[0] else None
    gone = classifier.absent_effect(effect, each[lacking], absences[lacking], p)
    return replace(
        together,
        effect=replace(
            measurements.with_interval(effect, e.judged[name], 0, -1.0, 1.0),
            statistic=part(name, m.family),
            threshold=e.bound(name, p.threshold),
            layer=int(m.layer[e.chosen[0, 0]]),
            p=p_there,
        ),
        gone=replace(gone, p=min(1.0, p_absent[lacking])),
        holds=bool(held[0]),
        stands=int((held == held[0]).sum()),
        blocked=blocked(measurements.undecidable(p, m), sentence),
        not_gone="",
        needs=None,
        when_there=sentence,
        when_gone=(
            f"seed {seeds[lacking]} lacks it: {classifier.negligible(each[lacking], absences[lacking], p)}"
        ),
        otherwise=sentence,
    )
