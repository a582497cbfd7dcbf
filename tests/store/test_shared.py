"""A store that hosts share: locks may fail to exclude, and still there is one entry and nobody fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from places import python_path

from emergence.errors import BrokenExperiment
from emergence.store import locks
from emergence.store.inventory import PARTIAL
from emergence.store.store import Store, key_of

SPEC = {"seed": 0}
BUILDER = """
import os, sys, time
from pathlib import Path
from emergence.store import locks, partial
from emergence.store.store import Store

root, say, steps, host, own_locks = sys.argv[1:]
locks.LEASE_S = 1.0
if host:
    import socket
    socket.gethostname = lambda: host
if own_locks:  # as on a file system that keeps locks within a host
    lock = locks._lock
    def elsewhere(path, notice):
        place = Path(own_locks); place.mkdir(exist_ok=True); (place / locks.SHARED).touch()
        return lock(place / path.name, notice)
    locks._lock = elsewhere

def build(workdir):
    print("at", say, workdir.name, "of", len(list(workdir.iterdir())), flush=True)
    for n in range(int(steps)):
        path = workdir / f"step{n}"
        if not path.exists():
            path.write_text(str(n))
            time.sleep(0.1)
    return {"by": say}

entry = Store(root, lambda text: print("note", text, flush=True)).get_or_build("runs", {"seed": 0}, build)
print("has", entry.info["by"], flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.share()
    return made


@pytest.fixture
def builder(store: Store, tmp_path: Path):
    """Start a real process that builds the entry in steps of a tenth of a second."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, steps: int = 8, host: str = "", own_locks: bool = False) -> subprocess.Popen[str]:
        place = str(tmp_path / f"locks-{name}") if own_locks else ""
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", BUILDER, str(store.root), name, str(steps), host, place],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PYTHONPATH": python_path()},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(found: Callable[[], object]) -> None:
    for _ in range(3000):
        if found():
            return
        time.sleep(0.01)
    raise TimeoutError


def reached(store: Store, n: int) -> Callable[[], object]:
    return lambda: list(store.root.glob(f"runs/*{PARTIAL}-*/step{n}"))


def said(process: subprocess.Popen[str]) -> list[str]:
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    return out.splitlines()


def require_one_entry(store: Store, n_steps: int = 8) -> None:
    """It is whole, and nothing else is left of it."""
    shelf = store.root / "runs"
    (entry,) = (path for path in shelf.iterdir() if path.is_dir())
    assert entry.name == key_of(SPEC)
    steps = {p.name: p.read_text() for p in entry.glob("step*")}
    assert steps == {f"step{n}": str(n) for n in range(len(steps))}
    assert len(steps) >= n_steps, "more where it went on from one who was further"
    assert [item.state for item in store.entries()] == ["complete"]
    assert store.verify(store.entries()[0]) is None


def test_two_builders_whose_locks_do_not_exclude_make_one_entry_and_neither_fails(store, builder):
    both = [builder(name, own_locks=True) for name in ("a", "b")]
    lines = [said(process) for process in both]
    began = [line for told in lines for line in told if line.startswith("at ")]
    assert len({line.split()[2] for line in began}) == 2, "both built, each in a folder of its own"
    assert lines[0][-1] == lines[1][-1], "and both have the entry of the first"
    require_one_entry(store)


def test_one_who_is_slower_takes_the_entry_of_the_first_though_its_own_folder_is_gone(store, builder):
    slow = builder("slow", steps=600, own_locks=True)
    until(reached(store, 2))
    quick = builder("quick", steps=4, own_locks=True)
    assert said(quick)[-1] == "has quick"
    told = said(slow)
    assert told[-1] == "has quick"
    assert "another process finished it first; what it built is used" in told[-2]
    (entry,) = store.entries()
    assert entry.state == "complete"
    assert not list(store.root.glob(f"runs/*{PARTIAL}*"))


def test_when_a_holder_on_another_host_is_killed_its_lease_expires_and_the_other_goes_on(store, builder):
    holder = builder("first", steps=600, host="elsewhere")
    until(reached(store, 3))
    other = builder("second", steps=8)
    assert other.stdout
    waiting = other.stdout.readline()
    assert "process" in waiting
    assert "on elsewhere has held it" in waiting
    os.kill(holder.pid, signal.SIGKILL)
    told = said(other)
    assert told[-1] == "has second"
    (began,) = (line for line in told if line.startswith("at "))
    assert int(began.split()[-1]) >= 4, "it went on from what was reached"
    require_one_entry(store)


def test_when_a_holder_on_this_host_is_killed_the_other_goes_on_at_once_in_its_folder(store, builder):
    locks_kept = locks.LEASE_S
    holder = builder("first", steps=600)
    until(reached(store, 3))
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    told = said(builder("second", steps=8))
    (began,) = (line for line in told if line.startswith("at "))
    assert int(began.split()[-1]) >= 4
    assert locks_kept == 30.0, "other processes had a second"
    require_one_entry(store)


def test_a_holder_that_was_paused_longer_than_its_lease_takes_the_others_entry(store, builder):
    holder = builder("paused", steps=600)
    until(reached(store, 2))
    os.kill(holder.pid, signal.SIGSTOP)
    assert said(builder("second", steps=8))[-1] == "has second"
    os.kill(holder.pid, signal.SIGCONT)
    told = said(holder)
    assert told[-1] == "has second"
    require_one_entry(store)


def test_a_build_that_fails_fails_where_nobody_else_has_built(store):
    def broken(workdir: Path) -> None:
        raise BrokenExperiment("diverged")

    with pytest.raises(BrokenExperiment, match="diverged"):
        store.get_or_build("runs", SPEC, broken)
    assert [item.state for item in store.entries()] == ["partial"]
    assert store.entries()[0].key == key_of(SPEC)
    store.remove(store.entries()[0])
    assert not store.entries()


def test_a_store_is_shared_for_every_process_once_one_has_said_so(tmp_path):
    root = tmp_path / "store"
    assert not locks.is_shared(root / "runs" / "a")
    Store(root).get_or_build("runs", SPEC, lambda workdir: None)
    assert list(root.glob("runs/*.lock"))
    Store(root).share()
    Store(root).share()
    assert locks.is_shared(root / "runs" / "a")
    Store(root).get_or_build("runs", {"seed": 1}, lambda workdir: None)
    assert not list(root.glob("runs/*.lease")), "a lease goes with its holder"
    assert len(list(root.glob("runs/*.lock"))) == 1
    assert len(Store(root).entries()) == 2
