"""The head of a sweep: hands units to an engine, retries what failed, keeps the manifest.

In: a `Sweep`, an `Engine`. Out: a `Manifest`. Judging a cell waits for its runs. A unit that fails is handed
out again, and stops no other one when it fails for good. Nothing here knows what a unit does.
"""

from __future__ import annotations

import concurrent.futures as futures
import secrets
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from ..errors import BrokenExperiment
from ..progress import clock
from ..wording import first_line
from . import worker
from .engine import Engine
from .manifest import Entry, Manifest, settled
from .plan import Sweep, Unit

RETRIES = 2
_TICK = 0.25
_GONE = "the scheduler is gone; states are kept, and the same line goes on"


class Watch(Protocol):
    """Who looks on: a table on a terminal, lines elsewhere."""

    def line(self, text: str) -> None:
        """Something that stays to be read."""

    def update(self, manifest: Manifest, left: float | None) -> None:
        """The state of now, and the seconds that are left; None where nobody knows yet."""


def run(sweep: Sweep, engine: Engine, watch: Watch, retries: int = RETRIES) -> Manifest:
    """Run every unit; return when all are done, or have failed `retries` + 1 times.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: what runs is stopped after its step, states are kept, and the same call goes on.
    BrokenExperiment
        The scheduler is gone.
    """
    return _Head(sweep, engine, watch, retries).run()


class _Head:
    def __init__(self, sweep: Sweep, engine: Engine, watch: Watch, retries: int) -> None:
        self.sweep, self.engine, self.watch, self.retries = sweep, engine, watch, retries
        sweep.store.folder("sweeps", sweep.hash, "logs")
        self.call = secrets.token_hex(8)
        self.manifest = Manifest.of(sweep)
        self.entries = {entry.id: entry for entry in self.manifest.units}
        self.ready = deque(unit for unit in sweep.units if not unit.needs)
        self.missing = {unit.id: set(unit.needs) for unit in sweep.units}
        self.judged_by: dict[str, list[Unit]] = {}
        for unit in sweep.units:
            for need in unit.needs:
                self.judged_by.setdefault(need, []).append(unit)
        self.handed: dict[futures.Future[dict[str, Any]], Unit] = {}
        self.steps = sum(unit.steps for unit in sweep.units)
        self.began, self.trained, self.shown = time.monotonic(), 0, 0.0

    def run(self) -> Manifest:
        self.manifest.write()
        try:
            while self._hand_out():
                ended, _ = futures.wait(self.handed, _TICK, futures.FIRST_COMPLETED)
                for future in ended:
                    self._take(self.handed.pop(future), future)
                if not self.engine.alive():
                    raise BrokenExperiment(_GONE)
                self._show()
        except BaseException:
            self._abandon()
            raise
        finally:
            self.manifest.write()
        return self.manifest

    def _show(self) -> None:
        """At most once a tick: of a thousand cells, a look costs more than a unit does."""
        if time.monotonic() - self.shown >= _TICK:
            self.manifest.write(now=False)
            self.watch.update(self.manifest, self._left())
            self.shown = time.monotonic()

    def _hand_out(self) -> bool:
        """Give the engine twice what it can run at once, so that no worker waits; False at the end."""
        most = 2 * max(1, self.engine.slots())
        while self.ready and len(self.handed) < most:
            unit = self.ready.popleft()
            entry = self.entries[unit.id]
            entry.state, entry.tries = "running", entry.tries + 1
            self.handed[self.engine.submit(worker.run, self.sweep.spec(unit) | {"call": self.call})] = unit
        return bool(self.handed)

    def _end(self, unit: Unit) -> None:
        """It is done or has failed for good: judging that waited for it alone is ready, and goes first."""
        self.steps -= unit.steps
        for waiting in self.judged_by.get(unit.id, ()):
            self.missing[waiting.id].discard(unit.id)
            if self.missing[waiting.id]:
                continue
            if any(self.entries[need].state == "failed" for need in waiting.needs):
                self._fail(waiting, "a run that it is judged by failed")
            else:
                self.ready.appendleft(waiting)

    def _take(self, unit: Unit, future: futures.Future[dict[str, Any]]) -> None:
        entry, answer = self.entries[unit.id], _answer(future)
        if answer["ok"]:
            settled(entry, answer)
            if not entry.cached:
                self.trained += unit.steps
            self._tell(unit, entry)
            self._end(unit)
            return
        entry.host = answer.get("host", entry.host)
        if entry.tries <= self.retries:
            entry.state, entry.error = "waiting", answer["error"]
            self.ready.append(unit)
            again = f"try {entry.tries + 1} of {self.retries + 1}"
            self.watch.line(f"{self._named(unit)}: {answer['error']}{_on(entry)}; {again}")
        else:
            self._fail(unit, answer["error"])

    def _fail(self, unit: Unit, why: str) -> None:
        entry = self.entries[unit.id]
        entry.state, entry.error = "failed", why
        log = f"; log {self.manifest.log(entry)}" if entry.tries else ""
        tries = f" after {entry.tries} tries" if entry.tries > 1 else ""
        self.watch.line(f"{self._named(unit)}: FAILED{tries}{_on(entry)}: {why}{log}")
        self._end(unit)

    def _tell(self, unit: Unit, entry: Entry) -> None:
        if unit.kind == "judge":
            said = ", ".join(f"{n} {name}" for name, n in entry.counts.items() if n)
        else:
            said = "was there" if entry.cached else f"trained in {clock(entry.seconds)}"
        self.watch.line(f"{self._named(unit)}: {said}{_on(entry)}")

    def _named(self, unit: Unit) -> str:
        return f"{self.sweep.cells[unit.cell].label}, {unit.label}"

    def _left(self) -> float | None:
        """Seconds until all is trained, from the updates made so far; None before the first run."""
        if not self.trained:
            return None
        return self.steps * (time.monotonic() - self.began) / self.trained

    def _abandon(self) -> None:
        """Nothing more begins; what runs is stopped with its state kept."""
        for future in self.handed:
            future.cancel()
        for unit in self.handed.values():
            self.entries[unit.id].state = "waiting"
        if self.engine.alive():
            with suppress(Exception):  # it may be gone by now, and its workers with it
                self.engine.stop(self.call)


def _answer(future: futures.Future[dict[str, Any]]) -> Mapping[str, Any]:
    """What a unit reported; of an engine that gave it up, why."""
    try:
        return future.result()
    except futures.CancelledError:
        return {"ok": False, "error": "the engine has lost it"}
    except Exception as error:  # `KilledWorker` of Dask, and whatever others call it
        return {"ok": False, "error": f"{type(error).__name__}: {first_line(error)}"}


def _on(entry: Entry) -> str:
    return f" on {entry.host}" if entry.host else ""
