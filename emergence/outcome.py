"""How the tests of one experiment ended, and what that is written down as.

In: pytest's reports of each test. Out: an exit code with one line for a person (`Ended`), and the record of
the run. An error's kind (`UsageError`, `BrokenExperiment`) is lost in pytest's exit code; here it is kept.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiment import Experiment

KIND = "emergence_error"
"""Attribute of a test's report: the kind of the error that its fixtures raised."""


@dataclass(frozen=True)
class Ended:
    """Exit code, and one line for the person if there is something to say."""

    code: int
    message: str = ""

    @property
    def status(self) -> str:
        """What the record of the run says: `success`, `interrupted` or `failed`."""
        return {0: "success", 1: "success", 130: "interrupted"}.get(self.code, "failed")


@dataclass
class Outcome:
    """What happened to the tests of one experiment."""

    started: datetime
    failed: list[str] = field(default_factory=list)
    """Ids of tests whose claim did not hold, or changed."""
    errors: list[tuple[str, str]] = field(default_factory=list)
    """Kind and message of each error that kept a test from being judged."""
    skipped: list[str] = field(default_factory=list)
    """Why tests were skipped."""
    passed: int = 0
    """An expected failure and an inconclusive verdict count: both are as they may be."""

    def add(self, report: Any) -> None:
        """Count one `pytest.TestReport`."""
        if report.failed:
            if kind := getattr(report, KIND, None):
                self.errors.append(kind)
            else:
                self.failed.append(report.nodeid)
        elif report.skipped and not hasattr(report, "wasxfail") and not hasattr(report, "inconclusive"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped.append(reason.removeprefix("Skipped: "))
        elif report.when == "call" or hasattr(report, "inconclusive"):
            self.passed += 1

    def ended(self, code: int) -> Ended:
        """Pytest's exit code and what was counted, as ours: 1 a claim, 2 usage, 3 broken, 130 stopped."""
        broken = [message for kind, message in self.errors if kind != "UsageError"]
        if broken or code == 3:
            return Ended(3, broken[0] if broken else "pytest itself failed; see above")
        if self.errors:
            return Ended(2, self.errors[0][1])
        if code in (2, -signal.SIGINT, -signal.SIGTERM):
            return Ended(130, "interrupted; run it again to go on where it stopped")
        if self.failed:
            return Ended(1, f"{len(self.failed)} verdicts failed or changed")
        if self.skipped and not self.passed:
            return Ended(2, self.skipped[0])
        if code == 5:
            return Ended(2, "no slow tests in the experiment's folder; see docs/extending.md")
        return Ended({0: 0, 1: 3, 4: 2}.get(code, 3), "" if code == 0 else "see above")


def record(experiment: Experiment, outcome: Outcome, ended: Ended) -> None:
    """Keep the record of a run; where it judged something, with the verdicts."""
    from .report import records, results

    config = experiment.config
    judged: dict[str, Any] = {}
    produced: dict[str, Any] = {}
    if ended.status == "success" and (experiment.results / records.VERDICTS).exists():
        place = experiment.results
        info, verdicts = results.read_verdicts(place)
        judged = {
            o: sum(v.outcome == o for v in verdicts) for o in ("supported", "falsified", "inconclusive")
        }
        judged |= {f"{v.prediction}[{v.cls}]": v.outcome for v in verdicts} | {"failed_tests": outcome.failed}
        produced = {"report": str(place / "report.html"), "runs": info["provenance"].get("runs", {})}
    error = None if ended.status == "success" else ended.message or "failed"
    content = records.run_record(
        config.name, ended.status, outcome.started, datetime.now(), produced, judged,
        config.public.model_dump(mode="json"), error,
    )  # fmt: skip
    folder = experiment.store.folder("experiments", config.name, "results")
    records.write_record(folder, outcome.started, content)
