"""A grid to units of work: every run that some cell needs, once, and the judging of each cell.

In: an experiment's folder, a `Grid`, a store. Out: a `Sweep`. Every cell's config is settled here, so what
cannot be meant is refused before anything starts. No key of the store is computed: it names the machine that
a run is trained on, and that is another one. A unit reports its key itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import models
from ..config.settings import shown_model
from ..errors import UsageError
from ..experiment import Experiment
from ..store import Store
from ..store.store import key_of
from ..verdicts import registration
from . import grid as grids
from .grid import Grid

if TYPE_CHECKING:
    from ..config import Arm, Config

HEX = 12
"""Digits of a sweep's hash and of a unit's: fewer than a key of the store has: it is taken for none."""


@dataclass(frozen=True)
class Unit:
    """What one process is asked to do: train one run, or judge one cell."""

    id: str
    kind: Literal["train", "judge"]
    cell: int
    """Index of the cell; of a run that several cells share, the first one's."""
    arm: str = ""
    seed: int = 0
    steps: int = 0
    """Updates, at most."""
    needs: tuple[str, ...] = ()
    """Ids of the runs that are judged."""

    @property
    def label(self) -> str:
        """`sft seed 0`, or `verdicts`."""
        return f"{self.arm} seed {self.seed}" if self.kind == "train" else "verdicts"


@dataclass(frozen=True)
class Cell:
    """One model with some settings."""

    settings: Mapping[str, Any]
    experiment: Experiment
    overrides: Mapping[str, Any]
    """`settings` and the number of seeds, as an `Experiment` takes them."""

    @property
    def label(self) -> str:
        """`model=a/b training.lora.rank=4`; a folder by its last part."""
        shown = {k: shown_model(str(v)) if k == "model" else v for k, v in self.settings.items()}
        return grids.label(shown)


@dataclass(frozen=True)
class Sweep:
    """Cells, and the units of work that they come to."""

    name: str
    """The experiment's, as its config says it."""
    folder: Path
    store: Store
    cells: tuple[Cell, ...]
    units: tuple[Unit, ...]
    """All runs in the order of the cells, then the judging of each cell."""
    committed: tuple[str, str] | None
    """Commit of the sweep's file, and when; None where it was typed, or is not committed as it is."""

    @cached_property
    def hash(self) -> str:
        """The same for the same cells of one experiment, in whichever order or form they were written."""
        cells = sorted(f"{c.experiment.config.hash} {c.experiment.config.model}" for c in self.cells)
        return key_of({"experiment": self.name, "cells": cells})[:HEX]

    @property
    def place(self) -> Path:
        """Where manifest and logs lie: `sweeps/<hash>` of the store."""
        return self.store.root / "sweeps" / self.hash

    def spec(self, unit: Unit) -> dict[str, Any]:
        """What the process is told, as JSON."""
        return {
            "kind": unit.kind,
            "folder": str(self.folder.resolve()),
            "store": str(self.store.root.resolve()),
            "overrides": dict(self.cells[unit.cell].overrides),
            "arm": unit.arm,
            "seed": unit.seed,
            "log": str((self.place / "logs" / f"{unit.id}.log").resolve()),
        }


def planned(folder: Path, grid: Grid, store: Store, seeds: int | None = None) -> Sweep:
    """The sweep of an experiment over a grid; loads no model.

    Raises
    ------
    UsageError
        A cell that cannot be meant (its config's own words), or two cells that come to the same.
    """
    cells = [_cell(folder, settings, store, seeds) for settings in grid.cells()]
    first: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        config = cell.experiment.config
        if twin := first.get((config.hash, config.model)):
            raise UsageError(f"duplicate cell: {cell.label} comes to the same as {twin.label}; drop one")
        first[config.hash, config.model] = cell
    if len(names := {cell.experiment.config.name for cell in cells}) > 1:
        raise UsageError(f"over name: a sweep is of one experiment, not of {', '.join(sorted(names))}")
    committed = registration.committed(grid.file) if grid.file else None
    return Sweep(names.pop(), folder, store, tuple(cells), tuple(_units(cells)), committed)


def _cell(folder: Path, settings: Mapping[str, Any], store: Store, seeds: int | None) -> Cell:
    overrides = dict(settings) | ({} if seeds is None else {"seeds": seeds})
    experiment = Experiment(folder, overrides, store)
    try:
        _ = experiment.notices
        models.require_known(experiment.config.model)
    except UsageError as error:
        raise UsageError(f"cell {grids.label(settings)}: {error}") from None
    return Cell(settings, experiment, overrides)


def _units(cells: list[Cell]) -> list[Unit]:
    """Runs, each once: settings of one arm leave the runs of the others as they are."""
    runs: dict[str, Unit] = {}
    judged = []
    for index, cell in enumerate(cells):
        config, needs = cell.experiment.config, []
        for arm in config.arms:
            for seed in arm.seeds:
                unit = Unit(_identity(config, arm, seed), "train", index, arm.name, seed, arm.max_steps)
                needs.append(runs.setdefault(unit.id, unit).id)
        id_ = "judge-" + key_of({"config": config.hash, "model": config.model})[:HEX]
        judged.append(Unit(id_, "judge", index, needs=tuple(dict.fromkeys(needs))))
    return [*runs.values(), *judged]


def _identity(config: Config, arm: Arm, seed: int) -> str:
    """Equal for runs that are equal on any one machine."""
    said = config.spec()
    decides = {"model": config.model, "arm": arm.spec(), "seed": seed, "task": said["task"]}
    return "train-" + key_of(decides | {"shown": said.get("test_prompts", [])})[:HEX]
