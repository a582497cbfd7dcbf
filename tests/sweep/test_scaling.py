"""Two workers on 64 runs: how much of their time is work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sweeps

from emergence.store import Store
from emergence.sweep import engine, grid, running
from emergence.sweep.manifest import Manifest
from emergence.sweep.plan import planned

pytest.importorskip("distributed")


class Clock:
    """Notes when each unit was taken in."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def line(self, text: str) -> None:
        self.taken.append(time.monotonic())

    def update(self, manifest: Manifest, left: float | None) -> None:
        pass


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_64_runs_keep_two_workers_at_work_for_nine_tenths_of_the_time(tmp_path: Path) -> None:
    place = sweeps.experiment(tmp_path)
    ranks = ",".join(map(str, range(1, 33)))
    sweep = planned(
        place / "hypotheses" / sweeps.NAME,
        grid.over([f"parameters.lora.rank={ranks}"]),
        Store(place / "store"),
    )
    assert sum(unit.kind == "train" for unit in sweep.units) == 64
    clock = Clock()
    with engine.start(sweep.place, 2) as started:
        reached = running.run(sweep, started, clock)
    assert {unit.state for unit in reached.units} == {"done"}
    # Start-up, several seconds of imports, is over when each worker has given its first answer.
    units = sorted(reached.units, key=lambda unit: unit.seconds, reverse=True)
    elapsed = clock.taken[-1] - clock.taken[1]
    busy = sum(unit.seconds for unit in units) - _first_two(reached)
    beside = 1000 * (2 * elapsed - busy) / (len(units) - 2)
    print(f"{busy:.1f} s of work in 2 x {elapsed:.1f} s; {beside:.0f} ms beside it a unit")
    assert busy / (2 * elapsed) >= 0.9


def _first_two(reached: Manifest) -> float:
    """Seconds of the two units that were answered first: the first that were handed out."""
    return sum(unit.seconds for unit in reached.units[:2])
