"""The verb `sweep`: options to a `Sweep`, an engine around it, and how it ended as an exit code.

In: what was typed. Out: lines, a table, a code: that of the worst cell, as `emergence run` would give it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import UsageError
from ..progress import clock
from ..store import Store
from ..store.locks import locked
from ..sweep import board, engine, grid, manifest, plan, running
from ..sweep.manifest import Manifest
from ..sweep.plan import Sweep
from . import plan as planning
from .options import BROKEN, OK, VERDICT, note
from .run import terminated_as_interrupted


def planned(folder: Path, file: Path | None, over: Sequence[str], seeds: int | None, store: Store) -> Sweep:
    """The sweep that was asked for; raises `UsageError` where it cannot be meant."""
    if file is not None and over:
        raise UsageError(f"{file}: write --over in the file, or leave the file out")
    return plan.planned(folder, grid.read(file) if file else grid.over(over), store, seeds)


def run(
    sweep: Sweep, workers: int | None, hosts: str | None, scheduler: str | None, retries: int
) -> tuple[int, Manifest]:
    """Run it to its end; the exit code, and what was reached.

    Two calls of one sweep wait for one another: the second finds everything there.
    """
    if hosts and scheduler:
        raise UsageError("--hosts and --scheduler exclude one another: a scheduler has its workers")
    named = [host.strip() for host in (hosts or "").split(",") if host.strip()]
    terminal = sys.stderr.isatty()
    place = sweep.store.folder("sweeps", sweep.hash)
    with (
        terminated_as_interrupted(),
        locked(place / "call", note),
        engine.start(place, workers, named, scheduler) as started,
        board.watch(terminal) as watch,
    ):
        watch.line(f"sweep {sweep.hash}: {started.slots()} workers; manifest and logs in {place}")
        ended = running.run(sweep, started, watch, retries)
    changed = any(unit.changed for unit in ended.units)
    return (BROKEN if ended.failed else VERDICT if changed else OK), ended


def dry(sweep: Sweep, workers: int | None) -> RenderableType:
    """What it would do, as this machine sees it: cached, to train and how long, a row a cell."""
    kept = planning.kept_runs(sweep.store)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("cell", "runs", "cached", "to train", "time"):
        table.add_column(column, header_style="dim", justify="left" if column == "cell" else "right")
    sources: dict[str, Any] = {}
    times: list[float | None] = []
    for index, cell in enumerate(sweep.cells):
        experiment = cell.experiment
        model = experiment.config.model
        if model in sources:
            experiment.source = sources[model]  # its weights are hashed once
        states, speeds = planning.run_states(experiment, kept)
        if planning.is_here(model):
            sources[model] = experiment.source
        own = [unit for unit in sweep.units if unit.kind == "train" and unit.cell == index]
        left = [unit for unit in own if states[unit.arm, unit.seed] != "cached"]
        speed = [speeds.get(planning.kind(experiment.config.arm(u.arm).model_dump())) for u in left]
        took = [s and u.steps * s for u, s in zip(left, speed, strict=True)]
        times += took
        row = (cell.label, str(len(own)), str(len(own) - len(left)), str(len(left)), _time(took))
        table.add_row(*map(Text, row))
    n = sum(unit.kind == "train" for unit in sweep.units)
    head = Text(f"{sweep.name}: sweep {sweep.hash}, store {sweep.store.root}")
    many = workers or engine.default_workers()
    end = f"{len(sweep.cells)} cells, {n} runs, {len(times)} to train"
    known = [seconds for seconds in times if seconds is not None]
    if known and len(known) == len(times):
        end += f": about {clock(sum(known))} of training, {clock(sum(known) / many)} with {many} workers"
    elif times:
        end += "; how long is known once each model has been trained here in the same way"
    return Group(head, Text(""), table, Text(""), Text(f"{end}. Nothing was trained."))


def _time(took: Sequence[float | None]) -> str:
    known = [seconds for seconds in took if seconds is not None]
    if len(known) < len(took):
        return "unknown"
    return f"about {clock(sum(known))}" if known else "–"


def status(name: str, store: Store, sweep: Sweep | None) -> Manifest:
    """What a sweep has reached: the one that was named, or the experiment's newest.

    Raises `UsageError` where none was started.
    """
    there = list(manifest.every(store.root, name))
    found = [one for one in there if sweep is None or one.hash == sweep.hash]
    if not found:
        raise UsageError(f"{name}: no such sweep was started in {store.root}; leave --status out to start it")
    return found[-1]


def shown(reached: Manifest) -> RenderableType:
    """Its table, what failed with host and log, and the counts."""
    lines = [*board.failures(reached), f"sweep {reached.hash}: {board.summary(reached)}"]
    return Group(board.table(reached), Text(""), *map(Text, lines))
