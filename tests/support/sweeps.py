"""A tiny experiment that is swept by the real engine: the command, its processes, what must come out.

Cells are `parameters.lora.rank` 2 and 4; the arms are `sft` and the `shuffled` control. The steps are many
enough that a process can be met while it trains.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import campaign
import tiny
from places import python_path
from trained import PREDICTIONS

from emergence.experiment import Experiment
from emergence.store import Store

OVER = ("--over", "parameters.lora.rank=2,4")
ONE = ("--over", "parameters.lora.rank=4")
CELL, WORKER = "emergence.sweep.cell", "spawn_main"
"""What the command of each kind of process has in it."""
STEPS = (0, 5, 10, 60)
NAME = "tiny"


def experiment(place: Path, steps: tuple[int, ...] = STEPS, arms: str = "sft: {method: sft}") -> Path:
    """`place/hypotheses/tiny` on `place/model`; returns `place`."""
    folder = place / "hypotheses" / NAME
    folder.mkdir(parents=True)
    tiny.write_config(folder, tiny.write_model(place / "model"), steps=steps, arms=arms)
    (folder / "predictions.py").write_text(PREDICTIONS)
    return place


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1"} | more


def start(place: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """`emergence ARGUMENTS` in `place`, in a session of its own."""
    code = "from emergence.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=place, env=environment(**more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Its exit code and all that it said."""
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def swept(place: Path, *arguments: str, **more: Any) -> tuple[int, str]:
    """`emergence sweep tiny` with two workers, to its end."""
    return ended(start(place, "sweep", NAME, *(arguments or OVER), "--workers", "2", **more))


def until(holds: Callable[[], Any], seconds: float = 300) -> Any:
    """What `holds` gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.02)
    return found


def offspring(pid: int, word: str) -> list[Any]:
    """The processes under `pid` whose command has `word` in it."""
    import psutil  # of the optional extra

    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if word in " ".join(child.cmdline()):
                    found.append(child)
    return found


def of(place: Path) -> list[Any]:
    """Every process of this machine that runs in `place`, whoever its parent is by now."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.pid != os.getpid() and Path(process.cwd()) == place.resolve():
                found.append(process)
    return found


def halfway(place: Path, step: int = 10) -> list[Path]:
    """Runs that are being trained and have reached a checkpoint."""
    return list((place / ".emergence" / "runs").glob(f"*.partial/checkpoints/{step:07d}"))


def reference(place: Path, ranks: tuple[int, ...] = (2, 4)) -> dict[str, dict[str, str]]:
    """Key to hashes of every run, trained in this process and disturbed by nobody."""
    found, loaded = {}, {}
    for rank in ranks:
        folder, kept = place / "hypotheses" / NAME, Store(place / "reference")
        made = Experiment(folder, {"parameters.lora.rank": rank}, kept, loaded=loaded)
        for arm in made.config.arms:
            for seed in arm.seeds:
                entry = made.train(arm, seed).entry
                found[entry.key] = campaign.content(entry.path)
    return found


def there(place: Path, store: str = ".emergence") -> dict[str, dict[str, str]]:
    """Key to hashes of every run in the swept store; each is sealed once, and nothing is left half-done."""
    kept = Store(place / store)
    items = [item for item in kept.entries() if item.kind == "runs"]
    assert all(item.state == "complete" for item in items)
    assert all(kept.verify(item) is None for item in items)
    return {item.key: _run(item.path) for item in items}


def _run(path: Path) -> dict[str, str]:
    """The run alone: what is read of it is nested in it."""
    hashes = campaign.content(path)
    return {name: digest for name, digest in hashes.items() if not name.startswith("readings")}
