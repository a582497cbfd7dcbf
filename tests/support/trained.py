"""A tiny experiment that is trained and read once for all tests, whichever worker of pytest-xdist asks first.

What comes after training (runs, readings, verdicts, reports, interventions) is tested on real checkpoints,
which need not be a test's own. The fixture `trained_folder` of `tests/conftest.py` is where they lie.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
from filelock import FileLock

from emergence.experiment import Experiment
from emergence.store import Store

ARMS = "sft: {method: sft}, classified: {method: classified, classifier_layer_pct: 0.5, max_steps: 2}"
STEPS = {"sft": (0, 2, 4), "classified": (0, 2), "shuffled": (0, 2, 4)}
"""The checkpoints of each arm; `shuffled` is the control that every config gets."""

PREDICTIONS = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("P", "an answer emerges", "sft", "answer", "intermediate", "symbolic", "classifier"),
)
"""


def experiment(folder: Path, **options: Any) -> Experiment:
    """The experiment of `folder`, with the store beside it."""
    return Experiment(folder, store=Store(folder / "store"), **options)


def made_once(shared: Path) -> Path:
    """The folder of the experiment: `config.yaml`, `predictions.py`, `model`, and a `store` of its results.

    Who asks first makes it, and the others wait. Nobody writes to it: a test that needs to takes a copy.
    """
    place, done = shared / "trained", shared / "trained.done"
    with FileLock(shared / "trained.lock"):
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            tiny.write_config(place, tiny.write_model(place / "model"), arms=ARMS)
            (place / "predictions.py").write_text(PREDICTIONS)
            assert experiment(place).study.runs
            done.touch()
    return place


def copied(folder: Path, place: Path) -> Path:
    """A copy of the experiment, results included, to write to; its model stays where it is."""
    return Path(shutil.copytree(folder, place, ignore=shutil.ignore_patterns("model")))
