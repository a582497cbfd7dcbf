"""What every pytest session gets where `emergence` is installed: options, marks, outcomes, the summary.

No fixture: a repository that wants those writes `pytest_plugins = ["emergence.fixtures"]` into its root
conftest.py; every other one notices nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .errors import EmergenceError
from .outcome import KIND, Outcome, record
from .wording import encodable

if TYPE_CHECKING:
    from .experiment import Experiment
    from .lens import LogitLens

VERDICT = "verdict"
FOLDER = "emergence_folder"
"""Attribute of a test's report: the folder of its experiment, also where xdist sends the report."""
SUMMARY = pytest.StashKey[dict[str, tuple[str, list[str], list[str]]]]()
"""By experiment: the path of its page, and the lines of its summary without and with colours."""
OUTCOMES = pytest.StashKey[dict[str, Outcome]]()
"""By folder: how the tests of an experiment ended."""
DESELECTED = pytest.StashKey[list[pytest.Item]]()
_HELD = pytest.StashKey[dict[Path, "Experiment"]]()
_LOADED = pytest.StashKey[dict[str, "LogitLens"]]()
"""Lenses by model: experiments on the same model share one."""


class Inconclusive(pytest.skip.Exception):  # type: ignore[misc, name-defined]
    """The evidence decides nothing: an outcome of its own, `?`, neither a pass nor a failure."""


_OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "NAME", "help": "embedded name, hub id or folder; default: the config's"},
    "config": {"metavar": "FILE", "type": Path, "help": "another config.yaml for the experiment"},
    "store": {
        "metavar": "DIR",
        "type": Path,
        "help": "where runs are kept [.emergence at the root of the repository]",
    },
    "shared-store": {
        "action": "store_true",
        "help": "hosts share the store, from now on: locks that hold on NFS",
    },
    "steps": {"metavar": "N[,N...]", "help": "the last step, or all checkpoint steps, of every arm"},
    "seeds": {"metavar": "N", "type": int, "help": "number of seeds: 0 to N-1"},
    "quick": {"action": "store_true", "help": "the size that the config declares under `quick`"},
    "ranks": {
        "metavar": "N",
        "type": int,
        "default": 1,
        "help": "take the runs that N processes trained together (emergence run --launch)",
    },
    "param": {
        "metavar": "KEY=VALUE",
        "action": "append",
        "default": [],
        "help": "one config value: training.lora.rank=8",
    },
    "report-to": {
        "metavar": "NAME[,NAME...]",
        "help": "hand the metrics of training to wandb, tensorboard, trackio or mlflow",
    },
    "strict-verdicts": {"action": "store_true", "help": "an inconclusive verdict fails"},
    "record-findings": {"action": "store_true", "help": "write this run's verdicts down in findings.json"},
}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None]:
    """Options of the main job, after those of the host's own conftest.py: a name that it has stays its own.

    Each is there as `--emergence-NAME` too.
    """
    yield
    group = parser.getgroup("emergence", "emergence: claims about training, tested")
    for name, settings in _OPTIONS.items():
        known = {"dest": _destination(name), **settings}
        try:
            group.addoption(f"--emergence-{name}", f"--{name}", **known)
        except (ValueError, argparse.ArgumentError):
            group.addoption(f"--emergence-{name}", **known)


def _destination(name: str) -> str:
    return f"emergence_{name.replace('-', '_')}"


def option(config: pytest.Config, name: str) -> Any:
    """The value of `--NAME`, whichever way it was given."""
    return config.getoption(_destination(name), _OPTIONS[name].get("default"))


def belongs(item: Any) -> bool:
    """Whether a test (or its definition) asks for our fixture `experiment`; a host may have its own."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return "experiment" in known and known["experiment"][-1].func.__module__ == "emergence.fixtures"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of xdist's workers, which have no terminal."""
    return hasattr(config, "workeroutput")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, for `--strict-markers`."""
    config.addinivalue_line("markers", "slow: trains a real model; the main job")
    config.addinivalue_line("markers", "prediction(id): the row of predictions.py that the test asserts")
    config.stash[SUMMARY], config.stash[OUTCOMES], config.stash[DESELECTED] = {}, {}, []
    config.stash[_HELD], config.stash[_LOADED] = {}, {}


def held(config: pytest.Config, folder: Path) -> Experiment:
    """The experiment of a folder with this session's options, the same one for whoever asks.

    Raises
    ------
    UsageError
        An option cannot be meant.
    """
    from .config import parse_override
    from .experiment import Experiment
    from .store import Store, default_root

    if folder not in config.stash[_HELD]:
        overrides: dict[str, Any] = dict(parse_override(p) for p in option(config, "param"))
        named = {name: option(config, name) for name in ("model", "steps", "seeds")}
        overrides |= {name: value for name, value in named.items() if value is not None}
        overrides |= {"quick": "yes"} if option(config, "quick") else {}
        kept = Store(option(config, "store") or default_root(folder))
        if option(config, "shared-store"):
            kept.share()
        config.stash[_HELD][folder] = Experiment(
            folder, overrides, kept, file=option(config, "config"), loaded=config.stash[_LOADED],
            ranks=option(config, "ranks"),
        )  # fmt: skip
    return config.stash[_HELD][folder]


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Keep what `-m` or `-k` left out: the summary says so where nothing of an experiment is left."""
    for item in items:
        item.config.stash[DESELECTED].append(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell an inconclusive verdict from a skip; give a failure its evidence; say whose experiment it was."""
    report = yield
    if not belongs(item):
        return report
    setattr(report, FOLDER, str(Path(item.path).parent))
    if call.excinfo and isinstance(call.excinfo.value, Inconclusive):
        report.inconclusive = True  # type: ignore[attr-defined]
    if report.failed and report.when == "setup" and call.excinfo:
        cause = (
            call.excinfo.value.__context__ or call.excinfo.value
        )  # the error itself, not pytest's wrapping
        setattr(report, KIND, [type(cause).__name__, str(cause)])
    given = getattr(item, "funcargs", {})
    if report.failed and report.when == "call" and VERDICT in given:
        report.sections.append((VERDICT, str(given[VERDICT])))  # pytest cuts what an assertion says
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """`?` for inconclusive."""
    if getattr(report, "inconclusive", False):
        return "inconclusive", "?", "INCONCLUSIVE"
    return None


class Collector:
    """Counts how the tests of each experiment end; only in the process that has the terminal."""

    def __init__(self, config: pytest.Config) -> None:
        self._outcomes, self._started = config.stash[OUTCOMES], datetime.now()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a report into its experiment's outcome."""
        if folder := getattr(report, FOLDER, None):
            self._outcomes.setdefault(folder, Outcome(self._started)).add(report)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Count only where all reports arrive: not in a worker of xdist."""
    if not is_worker(session.config):
        session.config.pluginmanager.register(Collector(session.config), "emergence-outcomes")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the record of the run, whatever happened; a worker of xdist sends what it judged instead."""
    config = session.config
    if is_worker(config):
        config.workeroutput[VERDICT] = config.stash[SUMMARY]  # type: ignore[attr-defined]
        return
    for folder, outcome in config.stash[OUTCOMES].items():
        with suppress(EmergenceError):  # a config or a store that cannot be used has been told already
            record(held(config, Path(folder)), outcome, outcome.ended(int(exitstatus)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of xdist judged; another one that judged the same experiment says the same."""
    node.config.stash[SUMMARY].update(getattr(node, "workeroutput", {}).get(VERDICT, {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The verdict table, the strength by layer and step, where the report is; and why nothing was judged."""
    for name, (page, *lines) in sorted(config.stash[SUMMARY].items()):
        terminalreporter.section(name)
        for line in lines[terminalreporter.hasmarkup]:
            terminalreporter.write_line(encodable(line, sys.stdout.encoding))
        terminalreporter.write_line(f"report: {page}")
    for folder, outcome in config.stash[OUTCOMES].items():
        for reason in dict.fromkeys(outcome.skipped):
            terminalreporter.write_line(f"{Path(folder).name}: not measured: {reason}")
    left_out = [item for item in config.stash[DESELECTED] if belongs(item)]
    wanted = "slow" if any(item.get_closest_marker("slow") for item in left_out) else "long"
    if left_out and not config.stash[OUTCOMES]:
        terminalreporter.write_line(
            f"{len(left_out)} claims were left out: they train a model; `-m {wanted}` runs them"
        )
