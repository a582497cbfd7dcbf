"""Fault injection: a process that dies, or a disk that fails, at the n-th thing it does to a folder.

As SQLite's tests do, the same work is run again and again, failing at operation 1, 2, 3, ... until it runs
through. The operations are what reaches the operating system: opening for writing, each write, fsync,
rename, mkdir, unlink, rmdir. A power cut is modelled as ext4 and XFS show it: names survive, bytes that
were not fsynced do not.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "remove", "rmdir")


class Disk:
    """Counts what is done to files under `root`, and calls `fault(number, name)` before each operation.

    A write calls it with half of its bytes written: the torn write that crash tests are about.
    """

    def __init__(self, root: Path, fault: Callable[[int, str], None]) -> None:
        self.root, self.fault = os.path.abspath(root), fault
        self.count = 0
        self.names: list[str] = []
        self.synced: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Disk:
        self.synced = {s.st_ino: (s.st_size, s.st_mtime_ns) for s in map(os.stat, self._files())}
        self._real = {name: getattr(os, name) for name in _CALLS}
        self._open = io.open
        for name in _CALLS:
            setattr(os, name, self._wrap(name))
        io.open = builtins.open = self._open_wrapped
        return self

    def __exit__(self, *_: object) -> None:
        for name, call in self._real.items():
            setattr(os, name, call)
        io.open = builtins.open = self._open

    def _mine(self, path: Any) -> bool:
        # fsync gets a descriptor; only what this package writes is fsynced at all
        return isinstance(path, int) or os.path.abspath(os.fsdecode(path)).startswith(self.root)

    def _operation(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        self.fault(self.count, name)

    def _wrap(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(path: Any, *more: Any, **named: Any) -> Any:
            # shutil.rmtree works by file descriptor (dir_fd), where the name alone says nothing
            if "dir_fd" in named or self._mine(path):
                self._operation(name)
            done = real(path, *more, **named)
            if name == "fsync":
                status = os.fstat(path)
                self.synced[status.st_ino] = (status.st_size, status.st_mtime_ns)
            return done

        return call

    def _open_wrapped(self, path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        if isinstance(path, int) or mode.startswith("r") or not self._mine(path):
            return self._open(path, mode, *more, **named)
        self._operation("open")
        file = self._open(path, mode, *more, **named)
        write = file.write

        def torn(data: Any) -> int:
            write(data[: len(data) // 2])
            file.flush()
            self._operation("write")
            return len(data) // 2 + write(data[len(data) // 2 :])

        return _Torn(file, torn)

    def lose_power(self) -> None:
        """Cut to nothing every file that was written to since it was last fsynced."""
        for path in self._files():
            status = os.stat(path)
            if self.synced.get(status.st_ino) != (status.st_size, status.st_mtime_ns):
                os.truncate(path, 0)

    def _files(self) -> list[str]:
        return [os.path.join(place, name) for place, _, names in os.walk(self.root) for name in names]


class _Torn:
    """A file whose `write` was replaced; the C type's own attribute cannot be."""

    def __init__(self, file: Any, write: Callable[[Any], int]) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def operations(root: Path, work: Callable[[], object]) -> list[str]:
    """The names of all that `work` does under `root`, in order, without any fault."""
    with Disk(root, lambda number, name: None) as disk:
        work()
    return disk.names


@contextmanager
def failing(root: Path, at: int, code: int, forever: bool = False) -> Iterator[Disk]:
    """Operation number `at` under `root` (with `forever` every one from there) raises OSError(code)."""

    def fault(number: int, name: str) -> None:
        writes = code != errno.ENOSPC or name in ("open", "write", "fsync", "mkdir", "rename", "replace")
        if (number == at or (forever and number > at)) and writes:
            raise OSError(code, os.strerror(code))

    with Disk(root, fault) as disk:
        yield disk


def killed_at(root: Path, at: int, work: Callable[[], object], power: bool = False) -> bool:
    """Run `work` in a process that is killed (-9) before its operation number `at`; False: it ran through.

    With `power`, what was not fsynced is lost as well.
    """

    def child() -> None:
        def fault(number: int, name: str) -> None:
            if number == at:
                if power:
                    disk.lose_power()
                os.kill(os.getpid(), signal.SIGKILL)

        with Disk(root, fault) as disk:
            work()

    return _status(_fork(child)) == -signal.SIGKILL


def killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed (-9) after `seconds`; False: it ran through before."""
    child = _fork(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return _status(child) == -signal.SIGKILL


def _fork(work: Callable[[], object]) -> int:
    """A child process that runs `work` and nothing else: no pytest, no atexit, no flush of its buffers."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; the child only touches files.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flip(path: Path, offset: int, bit: int) -> None:
    """Change one bit of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def random_place(files: list[Path], generator: random.Random) -> tuple[Path, int, int]:
    """A file, an offset and a bit; small files are as likely as big ones, so that every kind is hit."""
    path = generator.choice([f for f in files if f.stat().st_size])
    return path, generator.randrange(path.stat().st_size), generator.randrange(8)
