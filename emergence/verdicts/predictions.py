"""What is claimed, before anything is trained: `Prediction`, the bands, the table.

In: `hypotheses/<experiment>/predictions.py`. Out: a `Table`. Nothing here has seen a result, and nothing here
loads a statistics package: every door reads the table first. `checking` holds it against a config.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..readings.bands import AT_TARGET, BANDS, TARGET_DEPTH
from ..readings.effects import CAUSAL
from ..readings.readings import STRENGTH

NEGLIGIBLE = 0.05
"""The own-class mass below which a layer says nothing."""
TESTS = (
    "classifier",
    "no classifier",
    "growth",
    "predicts correctness",
    "replication",
    "probe",
    "no probe",
    *CAUSAL,
    "contrast",
    "accuracy gain",
    "no accuracy gain",
)
"""The criteria by name; `criteria.CRITERIA` has the function of each."""
FAMILIES = ("words", "words anywhere", "answer", "words or answer", "random words", "stream", "class means")


@dataclass(frozen=True)
class Prediction:
    """One claim, for each class, with everything that decides it."""

    id: str
    claim: str
    arm: str
    """An arm of the config, or `base`: the model before training; `permuted` for a probe's control."""
    family: str
    """Whose mass: `words` at the prompt's last token, `words anywhere` at each of its tokens, `answer`,
    `words or answer`, `random words`; `stream` for probes. Of a causal claim what is exchanged: `stream`,
    the plane of the `words`, or that of the `class means`."""
    band: str
    style: str
    test: str
    """How it is judged: one of `TESTS`."""
    threshold: float = STRENGTH
    """What the lower end of the 95 % interval must exceed for the effect to be there.

    A mass: 0.10. Growth: mass gained over the whole run, 0.10. AUROC: 0.60. Selectivity of a probe: 0.25.
    Share of the log-odds that an exchange carries, beyond its placebos: 0.10.
    """
    negligible: float = NEGLIGIBLE
    """What the upper bound must lie below for the effect to be none.

    It is smaller than `threshold`: no truth is within reach of both. A mass or growth: 0.05. AUROC: 0.55.
    Selectivity: 0.10. Between the two a claim is inconclusive: too little for one and too much for the other.
    """
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
    min_accuracy: float = 0.0
    """Share of whole held-out answers of the class that the model must write after training; 0: none."""

    against: tuple[str, ...] = ()
    """Of `predicts correctness`: arms over which it must have gained `threshold`, such as `base`. Of
    `contrast`: the arm that holds another mass where both are right equally often."""

    @property
    def absence(self) -> bool:
        """The claim is that there is nothing: it is supported by what falsifies any other."""
        return self.test.startswith("no ")

    @property
    def families(self) -> tuple[str, ...]:
        """The families that the claim may be about: `words or answer` are two."""
        return tuple(self.family.split(" or "))

    @property
    def hash(self) -> str:
        """SHA-256 over every field that is not at its default, by name.

        A field that is added later, at its default, so changes no hash and orphans no finding. A default that
        is itself changed would change none either: give the field another name, or raise the table's VERSION.
        """
        given = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }
        return _sha256(given)


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
        """SHA-256 over the hashes of the predictions and the bands that they name; `version` is not in it."""
        bands = BANDS | {AT_TARGET: TARGET_DEPTH}
        return _sha256([[p.hash for p in self.rows], {p.band: bands.get(p.band) for p in self.rows}])


def _sha256(content: Any) -> str:
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
        raise UsageError(f"{path}: PREDICTIONS must be a tuple of emergence.Prediction with one at least")
    if not isinstance(version, int):
        raise UsageError(f"{path}: VERSION must be a whole number; raise it with every change of the table")
    return Table(rows, version)
