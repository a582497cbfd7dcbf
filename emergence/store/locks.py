"""One process at a time, under `store`: the operating system's lock, which ends with its process.

In: a path. Out: a block that one process runs at a time, with a line for those who wait.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .files import explained

_RETRY_S, _REMIND_S = 0.1, 60.0


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


def _wait(lock: FileLock, path: Path, note: Path, notice: Callable[[str], None]) -> None:
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

    The file `<path>.lock` stays: removing it would let two processes hold two locks of one name.
    `<path>.holder` tells those who wait, through `notice`, and decides nothing.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
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
