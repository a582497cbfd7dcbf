"""What a sweep has reached: `sweeps/<hash>/sweep.json` in the store, written whole whenever it changes.

In: a `Sweep`, what its units report. Out: a `Manifest`: each cell's settings, verdicts and runs, each unit's
state, key, host and log. The store decides what is done; the manifest tells it, and where to find it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..config.settings import shown_model
from ..errors import BrokenExperiment
from ..store.files import write_atomic
from .plan import Sweep

FILE = "sweep.json"
SCHEMA = 1
_EVERY = 1.0
"""Seconds between two writes while units end; the last state is always written."""
State = Literal["waiting", "running", "done", "failed"]


@dataclass
class Entry:
    """One unit: what is known of it."""

    id: str
    kind: str
    label: str
    cell: int
    steps: int
    needs: tuple[str, ...]
    state: State = "waiting"
    tries: int = 0
    cached: bool = False
    """It was there before the sweep asked for it."""
    key: str = ""
    """The run's key in the store."""
    verdicts: str = ""
    """Path of `verdicts.json`, from the store's root."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many verdicts came out how."""
    changed: list[str] = field(default_factory=list)
    """`B1[add]`: falsified, and not written down as that; or written down, and not falsified."""
    host: str = ""
    seconds: float = 0.0
    error: str = ""


@dataclass
class Manifest:
    """All of a sweep that is kept."""

    experiment: str
    hash: str
    created: str
    committed: tuple[str, str] | None
    """Commit of the sweep's file and its time, as it was when the sweep was first started."""
    cells: list[dict[str, Any]]
    """`label`, `model` and `settings` of each."""
    units: list[Entry]
    place: Path
    _written: float = 0.0

    @classmethod
    def of(cls, sweep: Sweep) -> Manifest:
        """The one that is there, with what failed or was running waiting again; or a new one."""
        made = cls(
            experiment=sweep.name,
            hash=sweep.hash,
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
            committed=sweep.committed,
            cells=[
                {
                    "label": cell.label,
                    "model": shown_model(cell.experiment.config.model),
                    "settings": {k: v for k, v in cell.settings.items() if k != "model"},
                }
                for cell in sweep.cells
            ],
            units=[Entry(u.id, u.kind, u.label, u.cell, u.steps, u.needs) for u in sweep.units],
            place=sweep.place,
        )
        with suppress(FileNotFoundError, BrokenExperiment):  # a damaged one is written anew
            before = cls.read(sweep.place)
            made.created, made.committed = before.created, before.committed or made.committed
        return made

    @classmethod
    def read(cls, place: Path) -> Manifest:
        """What is kept in `place`; raises `FileNotFoundError`, or `BrokenExperiment` where it is damaged."""
        path = place / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            units = [Entry(**unit | {"needs": tuple(unit["needs"])}) for unit in found["units"]]
            committed = tuple(found["committed"]) if found["committed"] else None
            told = {name: found[name] for name in ("experiment", "hash", "created", "cells")}
            return cls(**told, committed=committed, units=units, place=place)
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenExperiment(f"{path}: damaged ({error}); the same sweep writes it again") from None

    def write(self, now: bool = True) -> None:
        """Keep it; with `now` off at most once a second."""
        if not now and time.monotonic() - self._written < _EVERY:
            return
        content = {
            "schema": SCHEMA,
            "experiment": self.experiment,
            "hash": self.hash,
            "created": self.created,
            "committed": self.committed,
            "cells": self.cells,
            "units": [dataclasses.asdict(unit) for unit in self.units],
        }
        write_atomic(self.place / FILE, json.dumps(content, indent=1, ensure_ascii=False))
        self._written = time.monotonic()

    def log(self, unit: Entry) -> Path:
        """Where the unit's own words are."""
        return self.place / "logs" / f"{unit.id}.log"

    def runs_of(self, cell: int) -> list[Entry]:
        """The runs that a cell is judged by, shared ones too."""
        needs = next(u.needs for u in self.units if u.kind == "judge" and u.cell == cell)
        return [u for u in self.units if u.id in needs]

    def judging(self, cell: int) -> Entry:
        """The judging of a cell."""
        return next(u for u in self.units if u.kind == "judge" and u.cell == cell)

    def count(self, state: State) -> int:
        """How many units are in a state."""
        return sum(u.state == state for u in self.units)

    @property
    def failed(self) -> list[Entry]:
        """Units that failed for good."""
        return [u for u in self.units if u.state == "failed"]


def every(root: Path, experiment: str) -> Iterator[Manifest]:
    """The sweeps of an experiment in a store, by its root; the one that changed last comes last."""
    found: Sequence[Path] = sorted((root / "sweeps").glob(f"*/{FILE}"), key=_changed)
    for path in found:
        with suppress(FileNotFoundError, BrokenExperiment):
            manifest = Manifest.read(path.parent)
            if manifest.experiment == experiment:
                yield manifest


def _changed(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def settled(entry: Entry, answer: Mapping[str, Any]) -> None:
    """Take a unit's answer into its entry."""
    for name in ("cached", "key", "verdicts", "counts", "changed", "host", "seconds"):
        if name in answer:
            setattr(entry, name, answer[name])
    entry.state, entry.error = "done", ""
