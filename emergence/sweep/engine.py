"""Where units run: Dask's `distributed` on this machine, on hosts that ssh reaches, or on a scheduler given.

In: how many workers, or hosts, or a scheduler. Out: an `Engine`. It queues, places and restarts; what it runs
is `worker.run`. Dask is an optional extra and is imported here alone. Between its processes everything is
TLS, with keys that are made for one call, but on a scheduler that somebody else has started.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..wording import first_line, printable
from . import hosts as remote
from . import worker
from .worker import gpus, stop

if TYPE_CHECKING:
    from distributed import Client, Security

PACKAGES = "distributed asyncssh cryptography"
DEATH = 60
"""Seconds without a scheduler after which a worker ends itself."""
_WAIT = 120.0
"""Seconds that a scheduler or a cluster is given to answer."""
_ASK, _GONE = 2.0, 10.0
"""Seconds between two looks at the workers; without a scheduler, before it counts as gone."""

Submit = Callable[..., "Future[dict[str, Any]]"]
"""`submit` of a `concurrent.futures.Executor`, and of everything that looks like one."""


@dataclass(frozen=True)
class Engine:
    """What a sweep asks of whoever places its units; three functions, and `submit` alone is needed."""

    submit: Submit
    slots: Callable[[], int]
    """How many units can run at once, as it is now."""
    alive: Callable[[], bool] = lambda: True
    stop: Callable[[str], Any] = stop
    """End what runs for a call, with its state kept."""


@contextmanager
def start(
    place: Path, workers: int | None = None, hosts: Sequence[str] = (), scheduler: str | None = None
) -> Iterator[Engine]:
    """An engine for the while of a block; nothing of it is left behind.

    Parameters
    ----------
    place
        Folder for the keys of TLS, which every host must see: files of mode 600, removed at the end.
    workers
        On this machine, or on each of `hosts`. By default one a core, one a GPU, or one on a Mac; one a host.
    hosts
        As ssh knows them. The scheduler runs on the first.
    scheduler
        Address of one that runs, or the file that it wrote.

    Raises
    ------
    UsageError
        Dask is not installed, a host cannot be reached, or nobody answers there.
    """
    _require_installed()
    import dask
    from distributed import Client

    _quiet("distributed", logging.ERROR)
    calm = {"distributed.worker.daemon": True, "distributed.admin.low-level-log-length": 0}
    with dask.config.set(calm):
        if scheduler is not None:
            yield from _used(_found(scheduler))
            return
        with _keys(place) as security:
            if hosts:
                remote.require(hosts)
            make = _local(workers, security) if not hosts else _remote(hosts, workers or 1, security)
            try:
                cluster = make()
            except Exception as error:  # whatever Dask, asyncssh or the system say
                raise UsageError(f"no worker could be started: {first_line(error)}") from None
            try:
                yield from _used(Client(cluster, security=security, timeout=_WAIT, set_as_default=False))
            finally:
                _quiet("distributed", logging.CRITICAL)  # workers that leave are no news
                _quiet("tornado", logging.CRITICAL)
                _quiet("asyncio", logging.CRITICAL)
                with suppress(Exception):
                    cluster.close(timeout=30)


def _require_installed() -> None:
    try:
        import asyncssh  # noqa: F401
        import cryptography  # noqa: F401
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"emergence sweep needs Dask ({error.name} is not installed): pip install {PACKAGES}"
        ) from None


def _used(client: Client) -> Iterator[Engine]:
    executor = client.get_executor(pure=False, retries=0)
    pulse = _Pulse(client)
    try:
        yield Engine(executor.submit, pulse.slots, pulse.alive, lambda call: client.run(stop, call))
    finally:
        with suppress(Exception):
            client.close(timeout=10)


class _Pulse:
    """Whether the scheduler is there, and how many threads its workers have; asked now and then."""

    def __init__(self, client: Client) -> None:
        self._client, self._slots, self._asked, self._seen = client, 0, 0.0, time.monotonic()

    def slots(self) -> int:
        now = time.monotonic()
        if now - self._asked > _ASK and self._client.status == "running":
            with suppress(OSError):  # it is gone; `alive` says so
                self._slots, self._asked = sum(self._client.nthreads().values()), now
        return self._slots

    def alive(self) -> bool:
        now = time.monotonic()
        if self._client.status == "running":
            self._seen = now
        return now - self._seen < _GONE


def _found(scheduler: str) -> Client:
    from distributed import Client

    known = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        return Client(**known, timeout=10, set_as_default=False)
    except Exception as error:  # a wrong address is a ValueError, nobody there an OSError
        raise UsageError(
            f"--scheduler {printable(scheduler)}: nobody answers ({first_line(error)}); "
            "name the file or the address of a Dask scheduler that runs"
        ) from None


def _local(workers: int | None, security: Security) -> Callable[[], Any]:
    from distributed import LocalCluster

    return lambda: LocalCluster(
        n_workers=workers or default_workers(), threads_per_worker=1, processes=True, memory_limit=0,
        dashboard_address=None, worker_dashboard_address=None, security=security, death_timeout=DEATH,
        preload=[worker.__name__], silence_logs=logging.CRITICAL,
    )  # fmt: skip


def _remote(hosts: Sequence[str], workers: int, security: Security) -> Callable[[], Any]:
    from distributed import SSHCluster

    options = {
        "nthreads": 1,
        "n_workers": workers,
        "memory_limit": 0,
        "death_timeout": DEATH,
        "dashboard": False,
    }
    return lambda: SSHCluster(
        [hosts[0], *hosts], security=security, worker_options=options, remote_python=sys.executable,
        scheduler_options={"protocol": "tls://", "dashboard": False, "idle_timeout": None},
    )  # fmt: skip


def default_workers() -> int:
    """One a GPU; one on a Mac, whose GPU is one; else one a core, since each computes on one."""
    if there := gpus():
        return len(there)
    if sys.platform == "darwin":
        return 1
    return len(os.sched_getaffinity(0))


@contextmanager
def _keys(place: Path) -> Iterator[Security]:
    """TLS for one call. Only the paths of its files are ever on a command line, as ssh workers get them."""
    import dask
    from distributed import Security

    folder = place.resolve() / f"tls-{os.getpid()}"
    folder.mkdir(parents=True, mode=0o700)
    try:
        made = Security.temporary()
        _private(key := folder / "key.pem", made.tls_client_key)
        _private(certificate := folder / "certificate.pem", made.tls_client_cert)
        tls = "distributed.comm.tls"
        paths = {f"{tls}.ca-file": str(certificate), "distributed.comm.require-encryption": True}
        for role in ("scheduler", "worker", "client"):
            paths |= {f"{tls}.{role}.key": str(key), f"{tls}.{role}.cert": str(certificate)}
        with dask.config.set(paths):
            yield Security()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _quiet(name: str, level: int) -> None:
    for known in [name, *(n for n in logging.root.manager.loggerDict if n.startswith(f"{name}."))]:
        logging.getLogger(known).setLevel(level)
