"""The verb `judge`: somebody's checkpoints under the claims of an experiment, in one line.

In: the folder of a series, the model that it was trained on. Out: an `Experiment` whose one arm is the
series, with those claims that speak of it and of the base model, and the ids of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Said
from ..config.settings import UNTRAINED
from ..errors import UsageError
from ..experiment import Experiment
from ..progress import Progress
from ..store import Store
from ..verdicts import Table


def given(
    folder: Path,
    base: str,
    series: Path,
    arm: str,
    overrides: Mapping[str, Any],
    store: Store,
    progress: Progress,
) -> tuple[Experiment, list[str]]:
    """The experiment of `folder` on a series, which plays the part of one of its arms.

    Raises `UsageError` where no claim is about this arm, and what a config with such an arm raises.
    """
    arms = Said("CHECKPOINTS", {arm: {"method": "given", "checkpoints": str(series.resolve())}})
    settings = {**overrides, "model": Said("--base", base), "training.training_methods": arms}
    experiment = Experiment(folder, settings, store, progress)
    rows = experiment.predictions
    there = {*UNTRAINED, arm}
    kept = tuple(p for p in rows if {p.arm, *p.against} <= there)
    if not any(p.arm == arm for p in kept):
        known = ", ".join(dict.fromkeys(p.arm for p in rows if p.arm not in UNTRAINED))
        raise UsageError(f"--arm {arm}: no claim of {folder.name} is about it alone; they name {known}")
    experiment.predictions = Table(kept, rows.version)
    return experiment, [p.id for p in rows if p not in kept]
