"""One process at a time, under `store`: the operating system's lock, which ends with its process.

In: a path. Out: a block that one process runs at a time, with a line for those who wait. Many network file
systems keep such locks within a host. A shared store has leases instead: files that their holder touches,
and that a host takes over when it has not seen them change for `LEASE_S`. A holder that was only paused then
works on beside its successor; so no entry may depend on the lock alone (see `store`).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from .files import explained

LEASE = ".lease"
SHARED = ".shared-store"
"""File at the root of a store whose locks hold between hosts."""
LEASE_S = 30.0
"""The same on every host: a lease of another duration is refused."""
_RETRY_S, _REMIND_S = 0.1, 60.0


def is_shared(path: Path) -> bool:
    """Whether `path` lies in a store that several hosts share."""
    return any((folder / SHARED).exists() for folder in path.absolute().parents)


def _lock(path: Path, notice: Callable[[str], None]) -> BaseFileLock:
    if not is_shared(path):
        return FileLock(path.with_name(path.name + ".lock"))

    def lost(_: object) -> None:
        notice(f"{path}: another process took it over, as this one was silent; who is done first is used")

    return SoftFileLease(path.with_name(path.name + LEASE), lease_duration=LEASE_S, on_compromise=lost)


def _age(seconds: int | float) -> str:
    # A clock that was set back must not show a negative age.
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _holder(note: Path) -> str:
    try:
        who = json.loads(note.read_bytes())
        return f"process {who['pid']} on {who['host']} has held it for {_age(time.time() - who['since'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds it"


def _wait(lock: BaseFileLock, path: Path, note: Path, notice: Callable[[str], None]) -> None:
    told = -_REMIND_S
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            if time.monotonic() - told >= _REMIND_S:
                told = time.monotonic()
                notice(f"{path}: {_holder(note)}; waiting for it to finish (Ctrl-C to give up)")
            time.sleep(_RETRY_S)


@contextmanager
def locked(path: Path, notice: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; a lock file left by a kill is free again at once.

    In a shared store it is free at once on the same host, and after `LEASE_S` on another. The file
    `<path>.lock` stays: removing it would let two processes hold two locks of one name. `<path>.holder` tells
    those who wait, through `notice`, and decides nothing.
    """
    lock = _lock(path, notice)
    note = path.with_name(path.name + ".holder")
    with explained(path):
        _wait(lock, path, note, notice)
    try:
        with suppress(OSError):
            note.write_text(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
            )
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()
