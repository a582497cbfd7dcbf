"""How a pytest run ended, in a file: what `emergence run` turns into an exit code and a result record.

In: pytest's hooks, as a plugin (`-p emergence.outcome`); the file's path in `EMERGENCE_OUTCOME`. Out: JSON.
An error's kind (`UsageError`, `BrokenExperiment`, ...) is lost in pytest's exit code; here it is kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import EmergenceError

VARIABLE = "EMERGENCE_OUTCOME"


class Recorder:
    """Collects what matters while the tests run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: dict[str, Any] = {"failed": [], "errors": [], "skipped": [], "passed": 0}

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        """A fixture that raised: keep the error that a person can act on, not pytest's wrapping of it.

        One that every later test would meet again ends the run, so that it is said once.
        """
        if getattr(report, "when", None) == "setup" and not report.skipped:
            raised = call.excinfo.value
            cause = raised.__context__ or raised
            self._content["errors"].append({"kind": type(cause).__name__, "message": str(cause)})
            if isinstance(cause, EmergenceError):
                node.session.shouldstop = f"{type(cause).__name__}, see above"

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count outcomes; an expected failure and an inconclusive verdict are no failures."""
        if report.failed and report.when == "call":
            self._content["failed"].append(report.nodeid)
        elif (
            report.skipped and not hasattr(report, "wasxfail") and not getattr(report, "inconclusive", False)
        ):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._content["skipped"].append(reason.removeprefix("Skipped: "))
        elif report.when == "call":
            self._content["passed"] += 1

    def pytest_sessionfinish(self) -> None:
        """Write it down."""
        self._path.write_text(json.dumps(self._content), encoding="utf-8")


def pytest_configure(config: Any) -> None:
    """Take part only where a file is asked for, and in xdist's controller only."""
    path = os.environ.get(VARIABLE)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(path)), "emergence-outcome")
