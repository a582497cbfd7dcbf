"""Stage training by several processes: what each rank does alone, and what they tell one another.

In: MLX's group of processes (a ring of sockets, made by `mlx.launch`). Out: `Group`, which a training asks
wherever it matters that there are others; `ALONE` is one process, to which nothing is different. Training is
data-parallel (Goyal et al. 2017, arXiv:1706.02677): each rank has all weights, takes its share of a batch's
rows, and makes the same update from the sum of all gradients. Rank 0 alone writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_unflatten

from ..errors import BrokenExperiment, UsageError
from .checkpoints import RunFolder, State, flat
from .signals import stop_requests

STOP = b"stop"
"""What a rank is told on its standard input to end at the next step; any other line says that all is well."""
HUNG = 75
"""Exit code of a rank that the others did not answer: EX_TEMPFAIL of sysexits.h, worth another try."""
_PATIENCE, _AT_LEAST_S = 10.0, 60.0
_SILENCE_S = 60.0
# Without a line for so long, whoever started the ranks is gone.

Step = tuple[Any, list[Any], Any]
"""Loss, its parts and the tree of gradients."""


class Alone:
    """What a training asks of the processes that it runs in: here one, to which nothing is different."""

    rank, size = 0, 1

    def stop_requests(self) -> AbstractContextManager[Sequence[int]]:
        """Yield a list that stays empty until the training is to end after the step it is at."""
        return stop_requests()

    def stream(self) -> tuple[int, ...]:
        """What the seed of this rank's dropout has beside those of the run and the step."""
        return ()

    def folder(self, path: Path, identity: str, kernels: str) -> RunFolder:
        """The folder that is written to."""
        return RunFolder(path, identity, kernels)

    def record(self, folder: RunFolder, say: Callable[[str], None]) -> dict[str, Any] | None:
        """`folder.record`, with the file of arrays that it names."""
        return folder.record(say)

    def same(self, value: Any) -> Any:
        """Rank 0's `value` (JSON), on every rank."""
        return value

    def agree(self, what: str, model: Any) -> None:
        """Raise `UsageError` on every rank unless the trainable arrays of all are equal to the bit."""

    def summed(self, step: Step) -> Step:
        """The sum over ranks of loss, parts and gradients, in float32."""
        return step


ALONE = Alone()


class Group(Alone):
    """Several processes, one of which this is. Every method is called by all of them, in the same order.

    What is sent goes over the CPU, whatever device computes. A rank that waits for an answer ten times as
    long as it worked since the last one (and a minute at least) takes the others for hung, and ends itself.
    Then `mlx.launch` ends them all: a ring that is stuck never returns, so there is nothing to raise.

    Raises `BrokenExperiment` from any method when another rank is gone.
    """

    def __init__(self, at_least: float = _AT_LEAST_S) -> None:
        """Wait for the others.

        Raises
        ------
        UsageError
            They cannot be reached, or this process was not started by `mlx.launch`.
        """
        try:
            self._group = mx.distributed.init(strict=True, backend="ring")
        except RuntimeError as error:
            raise UsageError(f"the ranks cannot reach one another: {error}; see docs/many_hosts.md") from None
        self.rank, self.size = self._group.rank(), self._group.size()
        self._at_least, self._stops = at_least, list[int]()
        self._asked, self._led = threading.Event(), False
        self._since, self._deadline = time.monotonic(), float("inf")
        self._heard = float("inf")  # who starts ranks by hand says nothing at all
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    # How it is ended

    def _listen(self) -> None:
        said = b""
        # Not `sys.stdin`: a thread that reads it makes the interpreter abort at its end.
        while received := os.read(0, 1024):
            self._heard = time.monotonic()
            *lines, said = (said + received).split(b"\n")
            if STOP in (line.strip() for line in lines):
                self._asked.set()
        self._asked.set()  # `mlx.launch` is gone

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self._at_least / 10))
            if time.monotonic() - self._heard > _SILENCE_S:
                self._asked.set()
            if time.monotonic() > self._deadline:
                waited = time.monotonic() - self._since
                print(
                    f"rank {self.rank}: no answer from the others in {waited:.0f} s; all ranks end here",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(HUNG)

    @contextmanager
    def _answering(self, patient: bool) -> Iterator[None]:
        """While the others are waited for."""
        now = time.monotonic()
        if not patient:
            self._deadline = now + max(self._at_least, _PATIENCE * (now - self._since))
        self._since = now
        try:
            yield
        except RuntimeError as error:
            if "[ring]" not in str(error):
                raise
            raise BrokenExperiment("another rank has ended; run again to go on from the last state") from None
        finally:
            self._deadline, self._since = float("inf"), time.monotonic()

    @contextmanager
    def stop_requests(self) -> Iterator[Sequence[int]]:
        """Yield a list that is filled on all ranks by the same step, once one of them was asked to stop."""
        yield self._stops

    # What they tell one another

    def _sum(self, array: mx.array, patient: bool = False) -> mx.array:
        mx.eval(array)
        with self._answering(patient):
            total = mx.distributed.all_sum(array, group=self._group, stream=mx.cpu)
            mx.eval(total)
        return total

    def _sent(self, content: bytes, patient: bool) -> bytes:
        """Rank 0's bytes: the others add zeros to them."""
        mine = content if self.rank == 0 else b""
        size = int(np.asarray(self._sum(mx.array([len(mine)], mx.int64), patient))[0])
        if size == 0:
            return b""
        part = np.frombuffer(mine, np.uint8) if self.rank == 0 else np.zeros(size, np.uint8)
        return np.asarray(self._sum(mx.array(part))).tobytes()

    def same(self, value: Any, patient: bool = False) -> Any:
        """Rank 0's `value` (JSON), on every rank; with `patient` it may take as long as it takes."""
        return json.loads(self._sent(json.dumps(value).encode(), patient))

    def agree_on(self, what: str, text: str, patient: bool = False) -> None:
        """Raise `UsageError` on every rank, naming those that differ, unless all have the same `text`."""
        mine = mx.zeros((self.size, 32), mx.uint8)
        mine[self.rank] = mx.array(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8))
        every = np.asarray(self._sum(mine, patient))
        others = [str(rank) for rank in range(self.size) if (every[rank] != every[0]).any()]
        if others:
            raise UsageError(
                f"rank {', '.join(others)} and rank 0 differ in {what}; nothing was trained. All hosts need"
                " the same experiment, model, version of emergence and kind of device"
            )

    # What a training asks

    def stream(self) -> tuple[int, ...]:
        """The rank: each one drops other units."""
        return (self.rank,)

    def folder(self, path: Path, identity: str, kernels: str) -> RunFolder:
        """Written to by rank 0; the others keep nothing."""
        made = RunFolder if self.rank == 0 else _NothingKept
        return made(path, identity, kernels)

    def record(self, folder: RunFolder, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Rank 0's record; the others get a copy of its arrays."""
        record: dict[str, Any] | None = self.same(folder.record(say))
        if record is not None and "arrays" in record:
            path = folder.path / record["arrays"]
            content = self._sent(path.read_bytes() if self.rank == 0 else b"", patient=False)
            if self.rank != 0:
                path.write_bytes(content)
        return record

    def agree(self, what: str, model: Any) -> None:
        """Raise `UsageError` on every rank unless the trainable arrays of all are equal to the bit."""
        hashed = hashlib.sha256()
        for name, array in flat(model.trainable_parameters()).items():
            hashed.update(name.encode() + np.asarray(array.astype(mx.float32)).tobytes())
        self.agree_on(what, hashed.hexdigest())

    def summed(self, step: Step) -> Step:
        """Add everything up in one message, with the question whether to stop as its last number."""
        total, parts, gradients = step
        tree: list[tuple[str, mx.array]] = list(flat(gradients).items())
        scalars = mx.stack([total, *parts, mx.array(float(self._asked.is_set()))]).astype(mx.float32)
        flattened = mx.concatenate([*(a.reshape(-1).astype(mx.float32) for _, a in tree), scalars])
        pieces = mx.split(self._sum(flattened), np.cumsum([a.size for _, a in tree]).tolist())
        summed = [
            (name, piece.reshape(array.shape).astype(array.dtype))
            for (name, array), piece in zip(tree, pieces, strict=False)
        ]
        total, *parts, stop = mx.split(pieces[-1].reshape(-1), len(parts) + 2)
        if float(np.asarray(stop)[0]) > 0 and not self._stops:
            self._stops.append(signal.SIGTERM)
        return total.reshape(()), [part.reshape(()) for part in parts], tree_unflatten(summed)

    # Whether there is anything to do

    def lead(self) -> None:
        """Rank 0 begins to build; the others, who wait in `led`, build with it."""
        self._led = True
        self.same(True)

    def led(self, work: Callable[[], object]) -> bool:
        """Rank 0 does `work`, in which it may `lead`; the others return whether it did."""
        if self.rank != 0:
            return bool(self.same(None, patient=True))
        self._led = False
        work()
        if not self._led:
            self.same(False)
        return False


class _NothingKept(RunFolder):
    """The folder of a rank that does not write: what it would write, rank 0 writes."""

    def record(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        return None

    def write_checkpoint(self, step: int, model: Any, adapter_config: Mapping[str, Any]) -> dict[str, str]:
        return {}

    def write_log(self, state: State) -> None:
        pass

    def write_state(self, state: State, model: Any, optimizer: optim.Optimizer) -> None:
        pass

    def write_result(self, result: Mapping[str, Any], state: State) -> None:
        pass
