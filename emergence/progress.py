"""How long work tells what it is doing; a stage sees only `Progress`.

`Bars` for a terminal, `Lines` for logs and CI, `Progress` itself says nothing. `for_pytest` chooses, and
writes past pytest's capture to the real stderr: bars are never garbled and never land in a test's output.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOBase, TextIOWrapper
from typing import IO, Any, Protocol, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

EVERY = 15.0
"""Seconds between two lines of one task, at least."""


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

    def metrics(self, arm: str, seed: int, step: int, values: Mapping[str, Any]) -> None:
        """What training has measured after `step` updates; not shown, see `tracking`."""


SILENT = Progress()


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def rate(done: int, seconds: float, unit: str) -> str:
    """`1.2 step/s`, or `8.5 s/step` where that reads better; empty before anything is done."""
    if done <= 0 or seconds <= 0:
        return ""
    speed = done / seconds
    return f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}"


def _finished(label: str, done: int, total: int, unit: str, seconds: float, note: str) -> str:
    plural = unit if total == 1 else f"{unit}s"
    count = f"{total} {plural}" if done >= total else f"stopped after {done} of {total} {plural}"
    return ", ".join(part for part in (f"{label}: {count} in {clock(seconds)}", note) if part)


class _LineTask:
    def __init__(self, progress: Lines, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit, self.done, self.note = label, total, unit, 0, ""
        self._progress, self.start = progress, time.monotonic()
        self._last = self.start

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + n, note or self.note
        now = time.monotonic()
        if self.done < self.total and now - self._last >= self._progress.every:
            self._last = now
            spent = now - self.start
            left = f"{clock(spent / self.done * (self.total - self.done))} left" if self.done else ""
            parts = (
                f"{self.done}/{self.total} {self.unit}",
                rate(self.done, spent, self.unit),
                left,
                self.note,
            )
            self._progress.line(f"{self.label}: " + ", ".join(part for part in parts if part))


class Lines(Progress):
    """Plain lines, at most one a task in `every` seconds, and one at its end."""

    def __init__(self, stream: TextIOBase, every: float = EVERY, prefix: str = "") -> None:
        self._stream, self.every, self._prefix = stream, every, prefix

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """A line now and then, with rate and time left."""
        task = _LineTask(self, label, total, unit)
        try:
            yield task
        finally:
            self.line(_finished(label, task.done, total, unit, time.monotonic() - task.start, task.note))

    def line(self, text: str) -> None:
        """Write one line at once."""
        self._stream.write(f"{self._prefix}{text}\n")
        self._stream.flush()


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(rate(int(task.completed), task.elapsed or 0.0, task.fields["unit"]), style="dim")


class _BarTask:
    def __init__(self, progress: RichProgress, label: str, total: int, unit: str) -> None:
        self._progress, self.done, self.note = progress, 0, ""
        self._id = progress.add_task(Text(label).markup, total=total, unit=unit, note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + n, note or self.note
        self._progress.update(self._id, advance=n, note=Text(self.note).markup)

    def remove(self) -> None:
        self._progress.remove_task(self._id)


class Bars(Progress):
    """Bars with rate and time left while there is work; one line for each piece of work that has ended."""

    def __init__(self, console: Console, fresh_line: bool = False) -> None:
        """`fresh_line`: something else (pytest's dots) may have left the cursor in the middle of a line."""
        self._console, self._fresh_line, self._open = console, fresh_line, 0
        self._bars: RichProgress | None = None

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """Draw a bar; tasks may nest."""
        bars = self._start()
        task, start = _BarTask(bars, label, total, unit), time.monotonic()
        self._open += 1
        try:
            yield task
        finally:
            task.remove()
            bars.refresh()
            self.line(_finished(label, task.done, total, unit, time.monotonic() - start, task.note))
            self._open -= 1
            if not self._open:
                bars.stop()
                self._bars = None

    def line(self, text: str) -> None:
        """Print above the bars."""
        if self._bars is None:
            self._break_line()
        self._console.print(Text(text), soft_wrap=True)

    def _break_line(self) -> None:
        if self._fresh_line:
            self._console.line()
            self._fresh_line = False

    def _start(self) -> RichProgress:
        if self._bars is None:
            self._break_line()
            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(compact=True),
                TextColumn("[dim]{task.fields[note]}"),
                console=self._console,
                transient=True,
                refresh_per_second=5,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bars.start()
        return self._bars


def for_stream(
    stream: TextIOBase, quiet: bool = False, fresh_line: bool = False, prefix: str = ""
) -> Progress:
    """Bars where `stream` is a terminal that can draw them, lines elsewhere, nothing when quiet."""
    if quiet:
        return SILENT
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI"):
        return Bars(Console(file=cast(IO[str], stream)), fresh_line)
    return Lines(stream, prefix=prefix)


@contextmanager
def for_pytest(config: Any) -> Iterator[Progress]:
    """The progress of a pytest run (`config`: `pytest.Config`): nothing under `-q`, plain lines under xdist.

    Writes to a duplicate of the real stderr, taken while pytest's capture is put aside for an instant: what
    is drawn never passes through the capture, not even from rich's own thread.
    """
    if config.option.verbose < 0:
        yield SILENT
        return
    with _real_stderr(config) as stream:
        worker = getattr(config, "workerinput", None)
        prefix = f"[{worker['workerid']}] " if worker else ""
        yield Lines(stream, prefix=prefix) if worker else for_stream(stream, fresh_line=True)


@contextmanager
def _real_stderr(config: Any) -> Iterator[TextIOWrapper]:
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        descriptor = os.dup(2)
    else:
        with capture.global_and_fixture_disabled():
            descriptor = os.dup(2)
    encoding = getattr(sys.__stderr__, "encoding", None) or "utf-8"
    with os.fdopen(descriptor, "w", encoding=encoding, errors="replace", buffering=1) as stream:
        yield stream
