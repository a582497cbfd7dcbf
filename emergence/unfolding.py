"""Training run by run, with each verdict told as soon as what it needs is there.

What needs the base model alone is judged before anything is trained, the claims about an arm when its last
seed is trained and read. A decision that is told does not change: see `verdicts.judge`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from . import provenance, readings, verdicts
from .config.settings import UNTRAINED
from .progress import clock
from .readings.effects import CAUSAL
from .verdicts.predictions import Prediction

if TYPE_CHECKING:
    from .config import Arm
    from .experiment import Experiment
    from .training import Run


def runs(experiment: Experiment) -> Iterator[Run]:
    """Every arm and seed of the config, from the store or trained now."""
    wanted = [(arm, seed) for arm in experiment.config.arms for seed in arm.seeds]
    missing = provenance.require_space(experiment, wanted)
    if not missing:
        yield from (experiment.train(arm, seed) for arm, seed in wanted)
        return
    told: set[str] = set()
    found: list[Run] = []
    left, spent, made = sum(arm.max_steps for arm, _ in missing), 0.0, 0
    _tell(experiment, [], (), told)
    experiment.progress.expect(dict(_work(experiment, missing)))
    for arm, group in groupby(wanted, lambda pair: pair[0]):
        for _, seed in group:
            start = time.monotonic()
            found.append(experiment.train(arm, seed))
            if (arm, seed) in missing:
                left, made = left - arm.max_steps, made + arm.max_steps
                spent += time.monotonic() - start
                rest = f"about {clock(left * spent / made)} of training left" if left else "all are trained"
                experiment.progress.line(f"{len(found)} of {len(wanted)} runs; {rest}")
            yield found[-1]
        if len(found) < len(wanted):  # else all are judged next
            _tell(experiment, found, {run.arm for run in found}, told)


def _work(experiment: Experiment, missing: Sequence[tuple[Arm, int]]) -> Iterator[tuple[str, float]]:
    """What is to be trained and read, by the label of its task, in prompts: a row trained costs three."""
    plan, depth = experiment.plan, experiment.lens.n_layers
    for arm, seed in missing:
        later = sum(step > 0 for step in arm.checkpoint_steps)
        if arm.method != "given":
            yield f"train {arm.name} seed {seed}", 3.0 * arm.batch_size * arm.checkpoint_steps[-1]
        if later:
            yield f"read {arm.name} seed {seed}", float(readings.prompts_of_run(plan, arm.name, later))
        if asked := plan.intervened.get(arm.name):  # each pass is through the layers after one, half of all
            work = 0.5 * len(plan.pairs) * readings.passes(asked, depth)
            yield f"intervene in {arm.name} seed {seed}", work


def _tell(experiment: Experiment, found: Sequence[Run], arms: Collection[str], told: set[str]) -> None:
    """Judge what can be judged by now and was not before, a line each; interventions come after readings."""
    table, plan = experiment.predictions, experiment.plan
    ready = {p.id for p in table if _ready(p, arms)}
    ready = {p.id for p in table if p.id in ready and (not p.premise or p.premise in ready)}
    causal = {p.id for p in table if p.test in CAUSAL}
    for some, read in ((ready - causal, replace(plan, intervened={})), (ready & causal, plan)):
        if not (new := some - told):
            continue
        spec = provenance.reading_spec(plan, experiment.source)
        study = readings.read_study(experiment.lens, read, found, experiment.store, spec, experiment.progress)
        premises = {p.premise for p in table if p.id in new and p.premise}
        for verdict in verdicts.judge(table, study, new | premises, advise=False):
            if verdict.prediction in new:
                said = f"{verdict.prediction} {verdict.cls}: {verdict.outcome} — {verdict.claim}"
                experiment.progress.line(said)
        told |= new


def _ready(p: Prediction, arms: Collection[str]) -> bool:
    return all(arm in UNTRAINED or arm in arms for arm in (p.arm, *p.against))
