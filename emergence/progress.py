"""How long work tells what it is doing; a stage sees only `Progress`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units of work; `note` is what changed (`loss 0.31`)."""
        ...


class _SilentTask:
    def advance(self, n: int = 1, note: str = "") -> None:
        pass


class Progress:
    """Says nothing. Subclasses draw bars or print lines."""

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """Announce `total` units of work under `label` while the block runs."""
        yield _SilentTask()

    def line(self, text: str) -> None:
        """One line that stays on the screen, such as a checkpoint's accuracy."""


SILENT = Progress()
