"""`replication`: has every seed a classifier by itself, at a layer that it chooses by itself.

The estimate is that of all seeds together, as `classifier` gives it; p is the largest of the seeds' own. One
seed that lacks it refutes replication.
"""

from __future__ import annotations

from dataclasses import replace

from ...analysis import evidence, intervals
from .. import measurements
from ..measurements import Measurements
from ..predictions import Prediction
from ..verdict import Assessment
from . import classifier


def assess(p: Prediction, cls: str, family: str, measured: Measurements) -> Assessment:
    """The criterion `classifier` for all seeds together, and for each of them."""
    together = classifier.assess(p, cls, family, measured)
    if together.effect.estimate is None:
        return together
    m = measured.masses(p, cls, family)
    step = measurements.step_index(p, m.steps)
    seeds = [m.of_seed(i) for i in range(m.n_seeds)]
    each = [evidence.measure(one, step, p.emerges) for one in seeds]
    clear = [e.clear(e.chosen, measurements.bounds(p)) and not e.constant(e.chosen) for e in each]
    # One seed without it refutes replication, and there are as many chances for that as seeds: Bonferroni.
    level = 1 - (1 - intervals.LEVEL) / m.n_seeds
    absent = [evidence.measure(one, step, p.emerges, level=level).absent(p.negligible) for one in seeds]
    places = [int(m.layer[e.chosen]) for e in each]
    listed = ", ".join(
        f"seed {run.seed} {100 * float(e.parts['strength'].estimate[e.chosen]):.0f} % at L{layer}"
        for run, e, layer in zip(measured.runs(p), each, places, strict=True)
    )
    sentence = f"{sum(clear)} of {m.n_seeds} seeds have it alone ({listed}); together {together.when_there}"
    by_seed = {"seeds_clear": clear, "seeds_absent": absent, "layers_by_seed": places}
    return replace(
        together,
        effect=replace(
            together.effect,
            p=max(float(e.p(measured.permutations(p))[0][e.chosen]) for e in each),
            details=by_seed | together.effect.details,
        ),
        holds=all(clear) and together.holds,
        refuted=any(absent),
        when_there=sentence,
        otherwise=sentence,
    )
