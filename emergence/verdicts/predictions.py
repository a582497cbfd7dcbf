"""What is claimed, before anything is trained: `Prediction`, the bands, the table, and its check.

In: `hypotheses/<experiment>/predictions.py` and a config. Out: a `Table`, or one line that says what cannot
be judged as it is written. Nothing here has seen a result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.settings import Config
from ..errors import UsageError
from ..readings.readings import STRENGTH

TESTS = (
    "classifier",
    "no classifier",
    "growth",
    "predicts correctness",
    "replication",
    "probe",
)
FAMILIES = ("words", "answer", "words or answer", "random words", "stream")
TARGET_DEPTH = 0.54
"""Where GPT-OSS's classifier sits, and where the classification term of the arm `classified` is put."""
MIN_PROMPTS = 10

BANDS: dict[str, tuple[float, float]] = {"intermediate": (0.0, 1.0), "middle": (0.25, 0.75)}
"""Ranges of depth, both ends included; the output layer is in none. `at 54 %` is the third: see `layers`."""
AT_TARGET = "at 54 %"


def layers(band: str, n_layers: int) -> tuple[int, ...]:
    """0-based layers of a band in a model of `n_layers` blocks; depth is `(layer + 1) / n_layers`.

    `at 54 %` is the block at that depth (index `floor(0.54 n)`) and the one on either side.

    Raises
    ------
    UsageError
        There is no such band.
    """
    inner = range(n_layers - 1)
    if band == AT_TARGET:
        centre = math.floor(TARGET_DEPTH * n_layers)
        return tuple(i for i in inner if abs(i - centre) <= 1)
    if band not in BANDS:
        raise UsageError(f"band {band!r} is unknown; known bands: {', '.join([*BANDS, AT_TARGET])}")
    low, high = BANDS[band]
    return tuple(i for i in inner if low <= (i + 1) / n_layers <= high)


@dataclass(frozen=True)
class Prediction:
    """One claim, for each class, with everything that decides it."""

    id: str
    claim: str
    arm: str
    """An arm of the config, or `base`: the model before training."""
    family: str
    """Whose mass: `words`, `answer`, `words or answer`, `random words`; `stream` for probes."""
    band: str
    style: str
    test: str
    """How it is judged: one of `TESTS`."""
    threshold: float = STRENGTH
    """What the lower end of the 95 % interval must exceed (unless the claim is absence)."""
    negligible: float = STRENGTH
    """An effect whose interval lies below this is none; the claim that it is there is then falsified."""
    alpha: float = 0.01
    """For permutation p-values, adjusted by Holm over all predictions that are no controls."""
    emerges: bool = False
    """Must have grown by more than `threshold` since step 0."""
    any_step: bool = False
    """The claim is about every checkpoint after step 0, not about the last one."""
    min_seeds: int = 1
    """With fewer runs the verdict is inconclusive: it would speak of these runs only."""
    control: bool = False
    """Must hold, or no verdict that depends on it counts."""
    premise: str = ""
    """Another prediction that must be supported for this one to mean anything."""
    untrained_style: bool = False
    """The claim is about a style that is not trained on."""


@dataclass(frozen=True)
class Table(Sequence[Prediction]):
    """The pre-registered predictions, in order, with the version that findings refer to."""

    rows: tuple[Prediction, ...]
    version: int = 1

    def __getitem__(self, index: Any) -> Any:
        """The prediction at a position."""
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)

    @property
    def hash(self) -> str:
        """SHA-256 over every field of every prediction, bands included."""
        content = [[dataclasses.asdict(p) for p in self.rows], BANDS, TARGET_DEPTH]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_predictions(path: Path) -> Table:
    """`PREDICTIONS` and `VERSION` of an experiment's predictions.py.

    Raises
    ------
    UsageError
        The file is missing or has no such table.
    """
    if not path.is_file():
        raise UsageError(
            f"{path}: no predictions; an experiment's folder needs a predictions.py with PREDICTIONS"
        )
    names = runpy.run_path(str(path))
    rows, version = names.get("PREDICTIONS"), names.get("VERSION")
    if not isinstance(rows, tuple) or not all(isinstance(p, Prediction) for p in rows) or not rows:
        raise UsageError(
            f"{path}: PREDICTIONS must be a tuple of emergence.predictions.Prediction with one at least"
        )
    if not isinstance(version, int):
        raise UsageError(f"{path}: VERSION must be a whole number; raise it with every change of the table")
    return Table(rows, version)


def check(predictions: Sequence[Prediction], experiment: Config) -> tuple[str, ...]:
    """Tell, before anything is trained, which predictions cannot be judged under this config.

    Returns notices: predictions that are inconclusive for certain, such as one seed where replication is
    claimed (a run with `--seeds 1` is allowed; it speaks of itself only), or no p that could be small enough.

    Raises
    ------
    UsageError
        All problems at once: unknown arm, band, family or test, a style that is not read, one class, fewer
        than 10 prompts a class, an id twice, a premise that is not in the table, replication with fewer than
        two seeds asked.
    """
    ids = [p.id for p in predictions]
    problems = [
        f"{i}: is in the table {ids.count(i)} times; give each its own id"
        for i in sorted({*ids})
        if ids.count(i) > 1
    ]
    problems += _task_problems(experiment)
    for p in predictions:
        problems += [f"{p.id}: {text}" for text in _problems(p, ids, experiment)]
    if problems:
        raise UsageError("; ".join(problems))
    told = {p.id: _notices(p, experiment) for p in predictions}
    for id_, why in _undecidable(predictions, experiment).items():
        told[id_] = told[id_] or [why]
    return tuple(f"{id_}: {text}" for id_, texts in told.items() for text in texts)


def _undecidable(predictions: Sequence[Prediction], experiment: Config) -> dict[str, str]:
    from . import reach  # with SciPy, for which `emergence list` need not wait

    tests = {p.id: p.test for p in predictions}
    return {
        id_: f"{'can never be refuted' if tests[id_] == 'no classifier' else 'will be inconclusive'}: {why}"
        for id_, why in reach.undecidable(predictions, experiment).items()
    }


def _task_problems(experiment: Config) -> list[str]:
    task = experiment.task
    found = []
    if len(task.classes) < 2:
        found.append(
            f"operations: {', '.join(task.classes)}; a classifier tells classes apart, name two at least"
        )
    if task.num_test < MIN_PROMPTS:
        found.append(
            f"num_test={task.num_test} prompts a class; at least {MIN_PROMPTS} are needed for an interval"
        )
    return found


def _problems(p: Prediction, ids: Sequence[str], experiment: Config) -> list[str]:
    arms = ["base", *(a.name for a in experiment.arms)]
    found = []
    if p.arm not in arms:
        found.append(f"arm {p.arm!r} is not in the config; it has {', '.join(arms)}")
    if p.band not in (*BANDS, AT_TARGET):
        found.append(f"band {p.band!r} is unknown; known bands: {', '.join([*BANDS, AT_TARGET])}")
    if p.family not in FAMILIES:
        found.append(f"family {p.family!r} is unknown; known families: {', '.join(FAMILIES)}")
    if p.test not in TESTS:
        found.append(f"test {p.test!r} is unknown; known tests: {', '.join(TESTS)}")
    if p.style not in experiment.task.read_styles:
        found.append(
            f"style {p.style!r} is not read; add it to read_styles ({', '.join(experiment.task.read_styles)})"
        )
    if p.untrained_style and p.style in experiment.task.styles:
        found.append(
            f"style {p.style!r} is trained on, and the claim is about one that is not; drop it from styles"
        )
    if not 0 < p.alpha < 1:
        found.append(f"alpha={p.alpha:g} is no error rate; it lies between 0 and 1, 0.01 by default")
    if p.premise and p.premise not in ids:
        found.append(f"premise {p.premise!r} is not in the table")
    if p.test == "replication" and p.min_seeds < 2:
        found.append(
            f"claims replication with min_seeds={p.min_seeds}; one run replicates nothing, ask for 2 at least"
        )
    return found


def _notices(p: Prediction, experiment: Config) -> list[str]:
    if p.arm == "base":
        return []
    arm = experiment.arm(p.arm)
    found = []
    if len(arm.seeds) < p.min_seeds:
        found.append(
            f"will be inconclusive: it needs {p.min_seeds} seeds, arm {p.arm} has {len(arm.seeds)}; add seeds"
        )
    if p.test == "growth" and len(arm.checkpoint_steps) < 3:
        found.append(
            f"will be inconclusive: a trend needs three checkpoints, arm {p.arm} has {arm.checkpoint_steps}"
        )
    if p.band == AT_TARGET and math.floor(arm.classifier_layer_pct * 100) != math.floor(TARGET_DEPTH * 100):
        found.append(
            f"looks at 54 % depth, arm {p.arm} puts its classification term at {arm.classifier_layer_pct:.0%}"
        )
    return found
