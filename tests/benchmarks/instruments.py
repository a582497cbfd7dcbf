"""Instruments in processes of their own, and the work they are given."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
ROOT = WORKER.parents[2]


class Instrument:
    """`worker.py` of one name, in one Python environment, on one model folder."""

    def __init__(self, name: str, folder: Path, python: str = sys.executable) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed below; a pipe that nobody reads fills up
        self._process = subprocess.Popen(
            [python, str(WORKER), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ended: {self._errors.read().strip()[-2000:]}")
        return json.loads(line)  # type: ignore[no-any-return]


@contextmanager
def opened(places: Sequence[tuple[str, str]], folder: Path) -> Iterator[list[Instrument]]:
    """The instruments named `(name, python)`, all loaded and alive at once, ended together."""
    with ExitStack() as stack:
        found = []
        for name, python in places:
            instrument = Instrument(name, folder, python)
            stack.callback(instrument.close)
            found.append(instrument)
        yield found


def prompts(tokenizer: Any, n: int) -> list[list[int]]:
    """`n` distinct sums of two-digit numbers as the embedded model's 8 tokens each."""
    pairs = ((a, b) for a in range(10, 100) for b in range(10, 100) if (a * 31 + b * 17) % 7 == 0)
    return [
        tokenizer.encode(f"{a} + {b} = ", add_special_tokens=False)
        for a, b in (next(pairs) for _ in range(n))
    ]


def rows(tokenizer: Any, n: int = 16) -> dict[str, Any]:
    """A LoRA batch: `n` prompts of 8 tokens, 3 answer digits and the end of text, of which 11 go in."""
    ids = [
        [*p, *tokenizer.encode(f"{100 + i}", add_special_tokens=False), 2]
        for i, p in enumerate(prompts(tokenizer, n))
    ]
    return {"rows": ids, "answers": 4}


def alternate(found: Sequence[Instrument], job: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
    """The same job to each in turn, `rounds` times: what disturbs one disturbs all.

    By name: `seconds` (each round's), `median`, `peak_mb` (of the process's first call, when nothing that an
    earlier one left could be used again), `outcome` (the first call's).
    """
    first = {i.name: i(job) for i in found}
    later: dict[str, list[float]] = {i.name: [] for i in found}
    for _ in range(rounds):
        for i in found:
            later[i.name].append(i(job)["seconds"])
    return {
        name: {
            "seconds": seconds,
            "median": median(seconds),
            "peak_mb": first[name]["peak_mb"],
            "outcome": first[name]["outcome"],
        }
        for name, seconds in later.items()
    }
