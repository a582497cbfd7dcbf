"""A sweep as a person sees it: the table of its cells, live on a terminal, lines in a log.

In: a `Manifest`. Out: renderables, and a `Watch` for the head.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..progress import Lines, Progress, clock
from ..report.tables import BADGES
from .manifest import Entry, Manifest, State
from .running import Watch

_MOST = 20
"""Rows of the live table; the others are counted."""


def table(manifest: Manifest, most: int | None = None) -> RenderableType:
    """A row a cell: how many runs are there, its verdicts, what failed; with `most`, busy ones first."""
    by_id = {unit.id: unit for unit in manifest.units}
    judged = sorted((u for u in manifest.units if u.kind == "judge"), key=lambda u: u.cell)
    rows = [(unit, [by_id[need] for need in unit.needs]) for unit in judged]
    shown = rows if most is None else sorted(rows, key=lambda row: _rank(*row))[:most]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("cell", "runs", "state", "verdicts"):
        made.add_column(name, header_style="dim", no_wrap=name != "state", overflow="fold")
    for unit, runs in shown:
        done = f"{sum(run.state == 'done' for run in runs)}/{len(runs)}"
        made.add_row(Text(manifest.cells[unit.cell]["label"]), done, _state(unit, runs), _verdicts(unit))
    more = [Text(f"and {len(rows) - len(shown)} more cells", style="dim")] if len(shown) < len(rows) else []
    return Group(made, *more)


def summary(manifest: Manifest) -> str:
    """`36 runs and 6 cells: 30 done, 2 running, 1 failed, 9 waiting`."""
    runs = sum(unit.kind == "train" for unit in manifest.units)
    cells = len(manifest.units) - runs
    states: tuple[State, ...] = ("done", "running", "failed", "waiting")
    counts = ", ".join(f"{n} {state}" for state in states if (n := manifest.count(state)))
    return f"{runs} run{'s' * (runs != 1)} and {cells} cell{'s' * (cells != 1)}: {counts}"


def failures(manifest: Manifest) -> list[str]:
    """A line for each unit that failed: where, why, and its log."""
    lines = []
    for unit in manifest.failed:
        log = f"; log {manifest.log(unit)}" if unit.tries else ""
        host = f" on {unit.host}" if unit.host else ""
        lines.append(f"{manifest.cells[unit.cell]['label']}, {unit.label}: failed{host}: {unit.error}{log}")
    return lines


def _rank(unit: Entry, runs: list[Entry]) -> int:
    states = {entry.state for entry in (unit, *runs)}
    order = ("running", "failed", "waiting", "done")
    return next(i for i, state in enumerate(order) if state in states)


def _state(unit: Entry, runs: list[Entry]) -> Text:
    if failed := [entry for entry in (*runs, unit) if entry.state == "failed"]:
        first = failed[0]
        return Text(f"failed: {first.label}{f' on {first.host}' if first.host else ''}", style="red")
    if unit.state == "done":
        return Text("judged")
    if busy := [entry.label for entry in (*runs, unit) if entry.state == "running"]:
        return Text(
            ", ".join(busy[:3]) + (f" and {len(busy) - 3} more" if len(busy) > 3 else ""), style="cyan"
        )
    return Text("waiting", style="dim")


def _verdicts(unit: Entry) -> Text:
    signs = [(f"{BADGES[name][0]} {n}  ", BADGES[name][1]) for name, n in unit.counts.items() if n]
    return Text.assemble(*signs) if unit.state == "done" else Text("")


class _Board:
    """The table on a terminal, drawn again as things change."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def line(self, text: str) -> None:
        self._live.console.print(Text(text), soft_wrap=True)

    def update(self, manifest: Manifest, left: float | None) -> None:
        done = manifest.count("done") + manifest.count("failed")
        bar = Table.grid(padding=(0, 2))
        time_left = "" if left is None else f"about {clock(left)} left"
        bar.add_row(ProgressBar(len(manifest.units), done, width=24), summary(manifest), time_left)
        self._live.update(Group(Text(""), table(manifest, _MOST), Text(""), bar))


class _Log:
    """A line a unit, and how far it is now and then."""

    def __init__(self, lines: Progress) -> None:
        self._lines, self._told = lines, 0

    def line(self, text: str) -> None:
        self._lines.line(text)

    def update(self, manifest: Manifest, left: float | None) -> None:
        done = manifest.count("done")
        if done >= self._told + max(10, len(manifest.units) // 20) and left is not None:
            self._told = done
            self._lines.line(f"{summary(manifest)}; about {clock(left)} left")


@contextmanager
def watch(terminal: bool) -> Iterator[Watch]:
    """Who looks on while a sweep runs: a live table on stderr if it is a terminal, else lines."""
    if not terminal:
        yield _Log(Lines(sys.stderr))  # type: ignore[arg-type]
        return
    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
        yield _Board(live)
