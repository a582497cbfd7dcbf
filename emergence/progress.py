"""How long work tells what it is doing; a stage sees only `Progress`.

`Bars` for a terminal, `Lines` for logs and CI, `Progress` itself says nothing. `for_pytest` chooses, and
writes past pytest's capture to the real stderr: bars are never garbled and never land in a test's output.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import TextIOBase, TextIOWrapper
from typing import IO, Any, Protocol, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
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

    def expect(self, work: Mapping[str, float]) -> None:
        """Say what is to come, by the label of its task, in one unit for all: shown beside each task."""

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


class Total:
    """How much is done of all that was expected, and how long the rest may take.

    What a task has as soon as it begins was done by an earlier run: it says nothing of how fast this one is.
    """

    def __init__(self, work: Mapping[str, float]) -> None:
        self._work, self._done = dict(work), dict.fromkeys(work, 0.0)
        self._start, self._given = time.monotonic(), 0.0

    def move(self, label: str, share: float, seconds: float) -> None:
        """The task `label` has come this far, from 0 to 1, in so many seconds."""
        if label in self._work:
            done = self._work[label] * min(share, 1.0)
            self._given += done - self._done[label] if seconds < 0.05 else 0.0
            self._done[label] = done

    def __contains__(self, label: str) -> bool:
        return label in self._work

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return sum(self._done.values()) / (sum(self._work.values()) or 1.0)

    def seconds_left(self) -> float | None:
        """How long the rest may take, as fast as it went so far; None before anything is known."""
        done, work = sum(self._done.values()), sum(self._work.values())
        made = done - self._given
        return (time.monotonic() - self._start) / made * (work - done) if made > 0 else None

    @property
    def left(self) -> str:
        """`about 12:30 left`; empty where nothing is left, and before anything is known."""
        seconds = self.seconds_left()
        return "" if seconds is None or self.share >= 1 else f"about {clock(seconds)} left"

    def __str__(self) -> str:
        return ", ".join(part for part in (f"{100 * self.share:.0f} % of all", self.left) if part)


def _finished(label: str, done: int, total: int, unit: str, seconds: float, note: str) -> str:
    plural = unit if total == 1 else f"{unit}s"
    count = f"{total} {plural}" if done >= total else f"stopped after {done} of {total} {plural}"
    return ", ".join(part for part in (f"{label}: {count} in {clock(seconds)}", note) if part)


_SHARE = "share"
"""Unit of the bar of all."""


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
        self._total = Total({})

    def expect(self, work: Mapping[str, float]) -> None:
        """Each task's last line says how far all is."""
        self._total = Total(work)

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """A line now and then, with rate and time left."""
        task, of_all = _LineTask(self, label, total, unit), ""
        try:
            yield task
            if label in self._total:
                self._total.move(label, 1.0, time.monotonic() - task.start)
                of_all = f"; {self._total}"
        finally:
            seconds = time.monotonic() - task.start
            self.line(_finished(label, task.done, total, unit, seconds, task.note) + of_all)

    def line(self, text: str) -> None:
        """Write one line at once."""
        self._stream.write(f"{self._prefix}{text}\n")
        self._stream.flush()


class _Count(MofNCompleteColumn):
    def render(self, task: RichTask) -> Text:
        return Text(f"{task.percentage:.0f} %") if task.fields["unit"] == _SHARE else super().render(task)


class _Left(TimeRemainingColumn):
    def render(self, task: RichTask) -> Text:
        """The bar of all says by itself how long the rest may take."""
        return Text("") if task.fields["unit"] == _SHARE else super().render(task)


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        if task.fields["unit"] == _SHARE:
            return Text("")
        return Text(rate(int(task.completed), task.elapsed or 0.0, task.fields["unit"]), style="dim")


class _BarTask:
    def __init__(
        self,
        progress: RichProgress,
        label: str,
        total: int,
        unit: str,
        moved: Callable[[_BarTask, float], None],
    ) -> None:
        self._progress, self.done, self.note, self._moved = progress, 0, "", moved
        self.label, self.total, self.start = label, total, time.monotonic()
        self._id = progress.add_task(Text(label).markup, total=total, unit=unit, note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done, self.note = self.done + n, note or self.note
        self._progress.update(self._id, advance=n, note=Text(self.note).markup)
        self._moved(self, self.done / max(self.total, 1))

    def remove(self) -> None:
        self._progress.remove_task(self._id)


class Bars(Progress):
    """Bars with rate and time left while there is work; one line for each piece of work that has ended."""

    def __init__(self, console: Console, fresh_line: bool = False) -> None:
        """`fresh_line`: something else (pytest's dots) may have left the cursor in the middle of a line."""
        self._console, self._fresh_line, self._open = console, fresh_line, 0
        self._bars: RichProgress | None = None
        self._total = Total({})
        self._all: TaskID | None = None

    def expect(self, work: Mapping[str, float]) -> None:
        """A bar of all is drawn above the others while there is work."""
        self._total = Total(work)

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """Draw a bar; tasks may nest."""
        bars = self._start()
        if label in self._total and self._all is None:
            self._all = bars.add_task("all", total=100, unit=_SHARE, note="")
        task = _BarTask(bars, label, total, unit, self._moved)
        self._open += 1
        try:
            yield task
            self._moved(task, 1.0)
        finally:
            task.remove()
            bars.refresh()
            self.line(_finished(label, task.done, total, unit, time.monotonic() - task.start, task.note))
            self._open -= 1
            if not self._open:
                bars.stop()
                self._bars = self._all = None

    def _moved(self, task: _BarTask, share: float) -> None:
        if task.label in self._total and self._bars is not None and self._all is not None:
            self._total.move(task.label, share, time.monotonic() - task.start)
            self._bars.update(self._all, completed=100 * self._total.share, note=self._total.left)

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
                _Count(),
                _Rate(),
                _Left(compact=True),
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
