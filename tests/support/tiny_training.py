"""A training of a tiny model that takes a second: its arm, its rows, and what it leaves, byte by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from emergence.config.settings import Arm, LoRA
from emergence.progress import Progress
from emergence.tasks import encoding
from emergence.tasks.arithmetic import Problem
from emergence.tasks.encoding import Row

CLASSES = ("add", "multiply", "subtract")
LORA = LoRA(rank=4, alpha=8.0)


def arm(method: str = "sft", **settings: Any) -> Arm:
    """An arm of six steps with checkpoints at 0, 2 and 6, but for `settings`."""
    given = {
        "name": method,
        "method": method,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "max_steps": 6,
        "checkpoint_steps": (0, 2, 6),
        "seeds": (0,),
        "lora": LORA,
    }
    return Arm.model_validate(given | settings)


def problems(n: int, seed: int = 0) -> list[Problem]:
    """`n` problems a class."""
    rng = random.Random(seed)
    return [Problem(cls, rng.randint(20, 60), rng.randint(1, 20)) for cls in CLASSES for _ in range(n)]


def rows(tokenizer: Any, n: int, seed: int = 0, styles: Sequence[str] = ("symbolic",)) -> tuple[Row, ...]:
    """`problems` as a training has them."""
    return tuple(encoding.rows(tokenizer, problems(n, seed), tuple(styles)))


def written(run: Path) -> dict[str, bytes]:
    """What is kept of a run, byte by byte, but for the record of its result, which holds times."""
    files = [p for p in run.rglob("*") if p.is_file() and p.name != "result.json"]
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in files}


def log(run: Path) -> list[dict[str, Any]]:
    """The lines of `train.jsonl`."""
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]


class Stop(Progress):
    """Does something at the `n`-th sign of progress; tells what was said."""

    def __init__(self, n: int, what: Callable[[], None] | None) -> None:
        self.n, self.what, self.said = n, what, []

    def task(self, label, total, unit="step"):
        return nullcontext(self)

    def advance(self, n: int = 1, note: str = "") -> None:
        self.n -= 1
        if self.n == 0:
            self.what()

    def line(self, text: str) -> None:
        self.said.append(text)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash
