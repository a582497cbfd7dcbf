"""What the engine runs in a worker: hand a unit to this worker's process, and wait for its answer.

In: a unit's spec. Out: its answer, with the host's name. The process (`cell`) is started when first asked for
and serves one unit after another; one that ended is replaced. It ends when this worker does. No MLX here.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_COMMAND = [sys.executable, "-m", "emergence.sweep.cell"]
_PATIENCE = 30.0
"""Seconds that a process is given to end its step and keep its state."""


class _Process:
    """One `cell` process, and the GPU that it holds."""

    def __init__(self) -> None:
        environment = os.environ | dict.fromkeys(THREADS, "1")
        self.call = ""
        self._gpu, number = _free_gpu()
        if number is not None:
            environment["CUDA_VISIBLE_DEVICES"] = number
        self.popen = subprocess.Popen(
            _COMMAND, env=environment, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the head's: it asks for SIGTERM
        )  # fmt: skip

    def ask(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The answer; raises `EOFError` where the process ends without one."""
        with suppress(BrokenPipeError):
            _stream(self.popen.stdin).write(json.dumps(spec) + "\n")
            _stream(self.popen.stdin).flush()
        if not (line := _stream(self.popen.stdout).readline()):
            raise EOFError
        return dict(json.loads(line))

    def end(self) -> int:
        """Close its stdin, wait, kill at last; return its code and free its GPU."""
        with suppress(OSError):
            _stream(self.popen.stdin).close()
        try:
            code = self.popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            code = self.popen.wait()
        _stream(self.popen.stdout).close()
        if self._gpu:
            self._gpu.release()
        return code


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


_processes: dict[int, _Process] = {}
"""By thread: a worker of somebody else's scheduler may have several."""
_stopped: set[str] = set()
"""Calls of `emergence sweep` that are over: what the engine still hands out of them is not begun."""
_STOPPED = {"ok": False, "stopped": True, "error": "stopped; its state is kept"}


def run(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A unit's answer: `ok` and what it reports, or `ok: False` and `error`."""
    host = {"host": socket.gethostname()}
    if spec["call"] in _stopped:
        return _STOPPED | host
    here = threading.get_ident()
    process = _processes.get(here)
    if process is None or process.popen.poll() is not None:
        process = _processes[here] = _Process()
    process.call = spec["call"]
    try:
        return process.ask(spec) | host
    except (EOFError, ValueError):
        del _processes[here]
        code = process.end()
        if spec["call"] in _stopped:
            return _STOPPED | host
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return {"ok": False, "error": f"its process {how}"} | host


def stop(call: str | None = None) -> int:
    """End the processes that work for a call (None: for any) after their step, their state kept.

    Returns how many there were.
    """
    if call is not None:
        _stopped.add(call)
    there = [p for p in list(_processes.values()) if call in (None, p.call)]
    for process in there:  # all at once, then wait for each
        process.popen.terminate()
    for process in there:
        with suppress(subprocess.TimeoutExpired):
            process.popen.wait(_PATIENCE)
    return len(there)


atexit.register(stop)


def dask_setup(worker: object) -> None:
    """Called by Dask in each worker on this machine: Ctrl-C in its terminal is the head's alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def gpus() -> list[str]:
    """The GPUs that MLX may use here, as CUDA names them; none where its backend is another."""
    if not any(_installed(name) for name in ("mlx-cuda-12", "mlx-cuda-13")):
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    with suppress(OSError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
    return []


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _free_gpu() -> tuple[FileLock | None, str | None]:
    """A GPU that no other worker of this person holds on this host; the lock ends with this process."""
    there = gpus()
    for number in there:
        lock = FileLock(Path(tempfile.gettempdir()) / f"emergence-{os.getuid()}-gpu-{number}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return lock, number
    return None, None
