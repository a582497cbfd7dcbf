"""`emergence run --launch hosts.json`: training by several hosts together, through `mlx.launch`.

In: an experiment and a file of hosts as `mlx.launch` reads it. Out: runs in the store, which the caller then
reads and judges alone.

What `mlx.launch` of MLX 0.32 does, and what is done about it: it ends with 0 whatever its processes do (each
rank reports how it ended); it takes `127.0.0.1` alone for this machine and reaches any other name by ssh; it
copies its standard input to every rank (which is how they are told to stop) and spins when that is closed; it
ends all ranks with SIGTERM when one has failed, and waits for them, even for one that cannot act on it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import BrokenExperiment, UsageError
from ..wording import printable

if TYPE_CHECKING:
    from ..experiment import Experiment

LOCAL = "127.0.0.1"
HUNG = 75
"""Exit code of a rank that the others did not answer; see `training.group`."""
TRIES = 3
"""How often ranks that hang are started, the first time included."""
_PORTS = range(32323, 60000)
_BEAT_S, _POLL_S, _GRACE_S = 5.0, 0.1, 10.0
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]*")
_SHAPE = '[{"ssh": "HOST", "ips": ["ADDRESS"]}, ...]'


@dataclass(frozen=True)
class Hosts:
    """A file of hosts that was read: one rank a line of it."""

    path: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def hosts(path: Path) -> Hosts:
    """Read a file of hosts; none of them is looked at yet.

    Raises
    ------
    UsageError
        It cannot be read, is no such file, or names fewer than two ranks.
    """
    shown = printable(str(path), 200)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--launch {shown}: {error.strerror}; it should be a file of {_SHAPE}") from None
    except ValueError as error:
        raise UsageError(f"--launch {shown}: is no JSON ({error}); it should be {_SHAPE}") from None
    if isinstance(content, dict):
        if content.get("backend", "ring") not in ("ring", ""):
            raise UsageError(
                f"--launch {shown}: backend {content['backend']!r} cannot be used; 'ring' is the only one"
            )
        content = content.get("hosts")
    if not isinstance(content, list) or not all(map(_is_host, content)):
        raise UsageError(f"--launch {shown}: should be {_SHAPE}, as mlx.launch reads it")
    if len(content) < 2:
        raise UsageError(f"--launch {shown}: names {len(content)} host; leave --launch out, or name two")
    return Hosts(path, tuple(host["ssh"] for host in content))


def _is_host(entry: Any) -> bool:
    """Whether it has a name that ssh cannot take for an option, and addresses for the ring."""
    if not isinstance(entry, dict) or not isinstance(entry.get("ips"), list) or not entry["ips"]:
        return False
    names = [entry.get("ssh"), *entry["ips"]]
    return all(isinstance(name, str) and _HOST.fullmatch(name) for name in names)


def train(experiment: Experiment, where: Hosts, waiting: Mapping[str, float] | None = None) -> None:
    """Train every run that is missing by one rank on each host; returns when all are in the store.

    Ranks that hang are ended and started again, and go on from their last state. `waiting` is what a rank's
    `Group` is made with.

    Raises
    ------
    UsageError, BrokenExperiment
        A host cannot be reached, the ranks differ, or what a training raises.
    KeyboardInterrupt
        Ctrl-C or SIGTERM, after the ranks have ended at a step that is kept.
    """
    from ..training.run import require_shareable

    arms = [arm for arm in experiment.config.arms if arm.method != "given"]
    for arm in arms:
        require_shareable(arm, len(where))
    specs = [experiment.spec(arm, seed) for arm in arms for seed in arm.seeds]
    if all(experiment.store.find("runs", spec) for spec in specs):
        return
    _require_reachable(where)
    given = {
        "folder": os.path.abspath(experiment.folder),
        "file": os.path.abspath(experiment.file),
        "store": os.path.abspath(experiment.store.root),
        "overrides": dict(experiment.overrides),
        "waiting": dict(waiting or {}),
    }
    for attempt in range(1, TRIES + 1):
        ended = _launched(where, json.dumps(given, default=str))
        if ended.hung and attempt < TRIES:
            print("the ranks hung; started again, from the last state", file=sys.stderr)
            continue
        ended.raise_unless_done(len(where))
        return


def _require_reachable(where: Hosts) -> None:
    """Ask each host, before any is started, whether it can be reached and has this Python."""
    for host in dict.fromkeys(where.names):
        if host == LOCAL:
            continue
        command = [
            "ssh",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            host,
            f"test -x '{sys.executable}'",
        ]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            raise UsageError(f"--launch {where.path}: {host}: ssh is not installed here") from None
        if asked.returncode == 255:
            said = printable(asked.stderr.strip(), 200) or "ssh failed"
            raise UsageError(
                f"--launch {where.path}: {host} cannot be reached ({said}); this machine is {LOCAL}"
            )
        if asked.returncode:
            raise UsageError(
                f"--launch {where.path}: {host} has no {sys.executable}; install the same environment at the"
                " same place there"
            )


@dataclass
class _Ended:
    """How the ranks ended, by what they reported; and what `mlx.launch` said of those that could not."""

    reports: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def hung(self) -> bool:
        return not self.stopped and any(f"exited with code {HUNG}" in text for text in self.warnings)

    def raise_unless_done(self, size: int) -> None:
        """Return if every rank did what it was to do; else say why not, as the first one put it."""
        failed = sorted((r for r in self.reports if r["code"]), key=lambda r: (r["code"] == 130, r["rank"]))
        # A rank that lost another one knows less than what mlx.launch saw of that one.
        failed = [r for r in failed if "another rank has ended" not in r["message"]]
        if self.stopped:
            raise KeyboardInterrupt
        if failed:
            raise (UsageError if failed[0]["code"] == 2 else BrokenExperiment)(failed[0]["message"])
        if len(self.reports) < size or any(r["code"] for r in self.reports):
            said = "; ".join(self.warnings) or "mlx.launch could not start them"
            raise BrokenExperiment(
                f"the ranks ended before all was trained ({said}); run again to go on from the last state"
            )


def _launched(where: Hosts, argument: str) -> _Ended:
    """Run the ranks to their end; they are asked to stop when this process is."""
    from ..training.signals import stop_requests

    command = [
        str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "--hostfile", str(where.path),
        "--starting-port", str(_free_port(len(where))),
        "--", sys.executable, "-m", "emergence.cli.rank", argument,
    ]  # fmt: skip
    ended = _Ended()
    with stop_requests() as stop, _session(command, where) as process:
        readers = [
            threading.Thread(target=_take_reports, args=(process.stdout, ended.reports)),
            threading.Thread(target=_pass_on, args=(process.stderr, ended.warnings)),
        ]
        for reader in readers:
            reader.start()
        told, ending = 0.0, 0.0
        while process.poll() is None:
            time.sleep(_POLL_S)
            if ended.warnings:  # of a rank; one that is stuck would be waited for without end
                ending = ending or time.monotonic() + _GRACE_S
                if time.monotonic() > ending:
                    break
            if stop and not ended.stopped:
                ended.stopped = True
                _tell(process, b"stop\n")
            if time.monotonic() - told > _BEAT_S:
                told = time.monotonic()
                _tell(process, b"\n")
    for reader in readers:
        reader.join()
    for stream in (process.stdin, process.stdout, process.stderr):
        with suppress(BrokenPipeError):
            stream.close()  # type: ignore[union-attr]
    return ended


@contextmanager
def _session(command: list[str], where: Hosts) -> Iterator[subprocess.Popen[bytes]]:
    """`mlx.launch` in a session of its own, which Ctrl-C at the terminal does not reach; none outlives us."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except FileNotFoundError:
        raise UsageError(f"--launch {where.path}: {command[0]} is missing; it comes with mlx") from None
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.write(line)
        process.stdin.flush()


def _take_reports(stream: IO[bytes], reports: list[dict[str, Any]]) -> None:
    for line in stream:
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and {"rank", "code", "message"} <= said.keys():
                reports.append(said)


def _pass_on(stream: IO[bytes], warnings: list[str]) -> None:
    """What the ranks say goes to our standard error; what `mlx.launch` says of them is kept for the end."""
    for line in stream:
        text = re.sub(r"\x1b\[\d+m", "", line.decode(errors="replace")).rstrip()
        if text.startswith("[WARN] Node with rank"):
            warnings.append(text.removeprefix("[WARN] Node with ").strip())
        elif text and not text.startswith("[ring]"):
            print(text, file=sys.stderr, flush=True)


def _free_port(n: int) -> int:
    """The first of `n` ports in a row that are free here; rank i listens on the i-th, on its own host."""
    for first in range(_PORTS.start, _PORTS.stop, n):
        if all(map(_is_free, range(first, first + n))):
            return first
    raise UsageError(f"no {n} ports in a row are free from {_PORTS.start} on")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True
