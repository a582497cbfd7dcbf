"""`emergence run`: pytest on one experiment, in this process, and how it ended.

In: an experiment, pytest's flags. Out: an `Ended`, and the record of the run.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..errors import EmergenceError
from ..outcome import Ended, Outcome, record

if TYPE_CHECKING:
    from ..experiment import Experiment

_PLUGINS = ("-p", "emergence.plugin", "-p", "emergence.fixtures")
"""Named here: a host may have turned the loading of installed plugins off."""
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""We are imported already, so pytest cannot rewrite our assertions; there are none to rewrite."""


def run(experiment: Experiment, flags: Sequence[str]) -> Ended:
    """Run pytest on the experiment's folder, with the tests that are marked slow or long.

    Raises
    ------
    NotMeasurable, UsageError
        The model cannot be had, or nothing can be kept in the store; nothing was started.
    """
    import pytest

    _ = experiment.source  # a model that cannot be had is said here, in one line
    experiment.store.folder("experiments", experiment.config.name, "results")  # and so is a store
    watch = _Watch()
    # Pytest takes `[` and `::` in a path for parts of a test's name.
    odd = any(sign in str(experiment.folder.resolve()) for sign in ("[", "::"))
    place = contextlib.chdir(experiment.folder) if odd else contextlib.nullcontext()
    paths = {"config": experiment.file, "store": experiment.store.root} if odd else {}
    absolute = [f"--emergence-{name}={os.path.abspath(path)}" for name, path in paths.items()]
    named = "." if odd else str(experiment.folder)
    arguments = ["-m", "slow or long", *_PLUGINS, *_QUIET, *flags, *absolute, named]
    with terminated_as_interrupted(), place:
        code = int(pytest.main(arguments, plugins=[watch]))
    ended = watch.outcome.ended(code)
    if not watch.counted:  # pytest ended before any test: the plugin had nothing to write down
        record(experiment, watch.outcome, ended)
    return ended


class _Watch:
    """Takes the outcome out of pytest, and ends it at an error that every later test would meet again."""

    def __init__(self) -> None:
        self.outcome, self.counted = Outcome(datetime.now()), False

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        if getattr(report, "when", None) == "setup" and not report.skipped:
            cause = call.excinfo.value.__context__ or call.excinfo.value
            if isinstance(cause, EmergenceError):
                node.session.shouldstop = f"{type(cause).__name__}, see above"

    def pytest_unconfigure(self, config: Any) -> None:
        from ..plugin import OUTCOMES

        if found := list(config.stash.get(OUTCOMES, {}).values()):
            self.outcome, self.counted = found[0], True


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C for the while: what was reached is kept, and the record is written."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
