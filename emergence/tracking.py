"""Metrics of training, handed to a hook or to a tracker: wandb, tensorboard, trackio or mlflow.

In: `(arm, seed, step, {name: value})`, as training measures it. Out: what the hook does with it. A tracker is
imported only where it is asked for, and none is a dependency. Each arm and seed is a run of its own there.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UsageError
from .progress import Progress, Task
from .wording import did_you_mean, first_line

Hook = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with arm, seed, step and what was measured: after each update, and at checkpoints."""


class Tracked(Progress):
    """Tells what another progress tells, and hands every metric to hooks."""

    def __init__(self, shown: Progress, hooks: Sequence[Hook]) -> None:
        self._shown, self._hooks = shown, hooks

    @contextmanager
    def task(self, label: str, total: int, unit: str = "step") -> Iterator[Task]:
        """As the other one does."""
        with self._shown.task(label, total, unit) as task:
            yield task

    def line(self, text: str) -> None:
        """As the other one does."""
        self._shown.line(text)

    def expect(self, work: Mapping[str, float]) -> None:
        """As the other one does."""
        self._shown.expect(work)

    def metrics(self, arm: str, seed: int, step: int, values: Mapping[str, Any]) -> None:
        """Hand on the numbers among `values`."""
        found = dict(numbers(values))
        for hook in self._hooks:
            hook(arm, seed, step, found)


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a nested mapping by path: `{"by_class": {"add": 0.5}}` has `by_class/add`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


def parse(report_to: str | None) -> list[str]:
    """The trackers of `--report-to wandb,tensorboard`.

    Raises
    ------
    UsageError
        Unknown, or not installed here.
    """
    named = [part.strip().lower() for part in (report_to or "").split(",") if part.strip()]
    for name in named:
        if name not in _TRACKERS:
            known = ", ".join(_TRACKERS)
            raise UsageError(f"--report-to {name}{did_you_mean(name, _TRACKERS)}; there are: {known}")
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--report-to {name}: it is not installed here; `pip install {name}`, or leave the option out"
            )
    return named


@contextmanager
def reporting(
    report_to: str | None, shown: Progress, project: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Progress]:
    """`shown`, which also reports to the trackers named while the block runs; raises what `parse` does.

    `settings` is the config, which trackers keep beside the metrics; `folder` is where files may lie. A
    tracker that fails is told of once and asked no more: a run does not end because of it.
    """
    trackers = [_TRACKERS[name](name, project, folder / name, settings, shown) for name in parse(report_to)]
    try:
        yield Tracked(shown, trackers) if trackers else shown
    finally:
        for tracker in trackers:
            tracker.close()


class _Tracker:
    """One service: opens a run of its own for each arm and seed."""

    def __init__(
        self, name: str, project: str, folder: Path, settings: Mapping[str, Any], shown: Progress
    ) -> None:
        self.module = importlib.import_module(name)
        self.name, self.project, self.folder, self.settings = name, project, folder, settings
        self._shown, self._failed = shown, False
        self._current: tuple[str, int] | None = None

    def __call__(self, arm: str, seed: int, step: int, values: Mapping[str, float]) -> None:
        if self._failed:
            return
        with self._told():
            if (arm, seed) != self._current:
                self.close()
                self._open(f"{arm} seed {seed}")
                self._current = arm, seed
            self._log(step, values)

    def close(self) -> None:
        """End the run that is open, if one is."""
        if self._current is not None:
            self._current = None
            with self._told():
                self._end()  # also after a failure: what was reported is kept

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            self._shown.line(f"{self.name}: {first_line(error)}; nothing more is reported to it")

    def _open(self, run: str) -> None:
        raise NotImplementedError

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class _Wandb(_Tracker):
    """Weights & Biases, and trackio, which has its functions."""

    def _open(self, run: str) -> None:
        self.module.init(project=self.project, name=run, config=dict(self.settings))

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.module.log(dict(values), step=step)

    def _end(self) -> None:
        self.module.finish()


class _Mlflow(_Tracker):
    def _open(self, run: str) -> None:
        self.module.set_experiment(self.project)
        self.module.start_run(run_name=run)
        self.module.log_dict(dict(self.settings), "config.json")

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.module.log_metrics(dict(values), step=step)

    def _end(self) -> None:
        self.module.end_run()


class _TensorBoard(_Tracker):
    """Event files, written by TensorBoard's own writer: no torch and no TensorFlow is needed."""

    def _open(self, run: str) -> None:
        writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._writer = writer.EventFileWriter(str(self.folder / run.replace(" ", "-")))
        self._shown.line(f"{run}: `tensorboard --logdir {self.folder}` shows it")

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        each = [self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summaries.Summary(value=each)
        self._writer.add_event(self._events.Event(step=step, wall_time=time.time(), summary=summary))

    def _end(self) -> None:
        self._writer.close()


_TRACKERS: dict[str, type[_Tracker]] = {
    "wandb": _Wandb, "tensorboard": _TensorBoard, "trackio": _Wandb, "mlflow": _Mlflow,
}  # fmt: skip
