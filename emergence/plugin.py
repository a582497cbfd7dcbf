"""pytest glue: options, fixtures in pipeline order, outcomes, summary. The only module that imports pytest.

A test that asks for the fixture `experiment`, or for one that follows from it, belongs to the experiment
whose `config.yaml` lies beside it. A repository that uses none of them notices nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .errors import EmergenceError, NotMeasurable

VERDICT = "verdict"
_REPORT = pytest.StashKey[dict[str, Any]]()
"""By experiment: the path of its page, and the lines of its summary without and with colours."""
_LOADED = pytest.StashKey[dict[str, Any]]()
"""Instruments by model: experiments on the same model share one."""


class Inconclusive(pytest.skip.Exception):  # type: ignore[misc, name-defined]
    """The evidence decides nothing: an outcome of its own, `?`, neither a pass nor a failure."""


_OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"metavar": "NAME", "help": "embedded name, hub id or folder; default: the config's"},
    "config": {"metavar": "FILE", "type": Path, "help": "another config.yaml for the experiment"},
    "store": {
        "metavar": "DIR",
        "type": Path,
        "default": Path(".emergence"),
        "help": "where runs are kept [.emergence]",
    },
    "steps": {"metavar": "N[,N...]", "help": "the last step, or all checkpoint steps, of every arm"},
    "seeds": {"metavar": "N", "type": int, "help": "number of seeds: 0 to N-1"},
    "param": {
        "metavar": "KEY=VALUE",
        "action": "append",
        "default": [],
        "help": "one config value: training.lora.rank=8",
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


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(_destination(name))


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, for `--strict-markers`."""
    config.addinivalue_line("markers", "slow: trains a real model; the main job")
    config.addinivalue_line("markers", "prediction(id): the line of predictions.py that the test asserts")
    config.stash[_REPORT] = {}
    config.stash[_LOADED] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per class for each prediction; the experiment is the folder's own."""
    if "experiment_folder" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.definition.path).parent
    metafunc.parametrize("experiment_folder", [folder], indirect=True, scope="session", ids=[folder.name])
    if VERDICT in metafunc.fixturenames:
        try:
            classes = _experiment(metafunc.config, folder).task.classes
        except EmergenceError:  # told in one line once all is collected: here it would be a traceback a file
            classes = ("unknown",)
        metafunc.parametrize("cls", classes)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """The header of the main job, only where it runs."""

    def asking(fixture: str) -> list[Path]:
        return [Path(i.path).parent for i in items if fixture in getattr(i, "fixturenames", ())]

    folders, claiming = dict.fromkeys(asking("experiment_folder")), set(asking("predictions"))
    if not folders or _is_worker(config):
        return []
    if _option(config, "config") and len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise pytest.UsageError(
            f"--config is for one experiment, {len(folders)} are here ({names}); name one"
        )
    from .backend import installed
    from .cli import catalogue

    with _usage():
        installed.require()
    import mlx.core as mx

    from .backend import openblas
    from .verdicts import judging as verdicts_

    with _usage():
        catalogue.distinct({folder: _experiment(config, folder).name for folder in folders})
    lines = [f"device: {mx.default_device()}, BLAS: {openblas.install()}, store: {_option(config, 'store')}"]
    for folder in folders:
        with _usage():
            experiment = _experiment(config, folder)
        arms = ", ".join(f"{a.name} × {len(a.seeds)} to step {a.max_steps}" for a in experiment.arms)
        lines.append(f"{experiment.name}: model {experiment.model}, config {experiment.hash}; {arms}")
        lines += experiment.notices
        with _usage():
            # A claim about the lens alone has no table of predictions.
            if folder in claiming:
                lines += verdicts_.check(_predictions(folder), experiment)
                _on_record(config, folder, experiment)
    return lines


# Fixtures, in pipeline order


@pytest.fixture(scope="session")
def experiment_folder(request: pytest.FixtureRequest) -> Path:
    """The experiment's folder: the one that the test file lies in."""
    return Path(request.param)


@pytest.fixture(scope="session")
def experiment(experiment_folder: Path, pytestconfig: pytest.Config) -> Any:
    """The folder's `config.yaml`, with the options applied: a `config.Config`."""
    with _readable():
        return _experiment(pytestconfig, experiment_folder)


@pytest.fixture(scope="session")
def predictions(experiment_folder: Path) -> Any:
    """The pre-registered table of the experiment: a tuple of `verdicts.Prediction`."""
    with _readable():
        return _predictions(experiment_folder)


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Iterator[Any]:
    """Bars on a terminal, lines elsewhere, nothing under `-q`."""
    from .progress import for_pytest

    with for_pytest(pytestconfig) as shown:
        yield shown


@pytest.fixture(scope="session")
def store(pytestconfig: pytest.Config, progress: Any) -> Any:
    """Where runs are kept: a `store.Store`."""
    from .store.store import Store

    with _readable():
        return Store(_option(pytestconfig, "store"), notice=progress.line)


@pytest.fixture(scope="session")
def instrument(experiment: Any, store: Any, pytestconfig: pytest.Config) -> Any:
    """Model, tokenizer and a lens that has proven itself on them: an `experiment.Instrument`."""
    from . import experiment as stages

    loaded = pytestconfig.stash[_LOADED]
    if experiment.model not in loaded:
        with _readable():
            loaded[experiment.model] = stages.load(experiment, store)
    return loaded[experiment.model]


@pytest.fixture(scope="session")
def model(instrument: Any) -> Any:
    """The base model, an `mlx.nn.Module`."""
    return instrument.model


@pytest.fixture(scope="session")
def tokenizer(instrument: Any) -> Any:
    """The model's tokenizer, as `mlx_lm.load` gives it."""
    return instrument.tokenizer


@pytest.fixture(scope="session")
def lens(instrument: Any) -> Any:
    """A `LogitLens` on the base model."""
    return instrument.lens


@pytest.fixture(scope="session")
def setting(
    experiment_folder: Path,
    experiment: Any,
    predictions: Any,
    instrument: Any,
    store: Any,
    progress: Any,
    pytestconfig: pytest.Config,
) -> Any:
    """Data, tokens, controls: everything that is fixed before the first training step."""
    from . import experiment as stages

    with _readable():
        _on_record(pytestconfig, experiment_folder, experiment, instrument.source.hash)
        prepared = stages.prepare(experiment, predictions, instrument, store)
    for note in prepared.notes:
        progress.line(note)
    return prepared


@pytest.fixture(scope="session")
def runs(setting: Any, progress: Any) -> Any:
    """Every arm × seed, trained or taken from the store."""
    from . import experiment as stages

    with _readable():
        return stages.train_all(setting, progress)


@pytest.fixture(scope="session")
def study(setting: Any, runs: Any, progress: Any) -> Any:
    """The readings of every layer of every checkpoint of every run: a `readings.Study`."""
    from . import experiment as stages

    with _readable():
        return stages.read(setting, runs, progress)


@pytest.fixture(scope="session")
def verdicts(
    experiment_folder: Path,
    setting: Any,
    predictions: Any,
    runs: Any,
    study: Any,
    pytestconfig: pytest.Config,
) -> dict[tuple[str, str], Any]:
    """All verdicts by (prediction, class); the report is written with them."""
    from . import experiment as stages

    with _readable():
        judged = stages.judge(setting, predictions, study)
        page = stages.publish(setting, predictions, runs, study, judged)
        if _option(pytestconfig, "record-findings"):
            stages.record(experiment_folder, setting, predictions, judged)
    pytestconfig.stash[_REPORT][setting.config.name] = _summary(judged, study, setting.config, page)
    return {(v.prediction, v.cls): v for v in judged}


@pytest.fixture(scope="session")
def refuted(
    experiment_folder: Path, experiment: Any, predictions: Any, instrument: Any
) -> dict[tuple[str, str], str]:
    """What is written down as falsified of these weights under these settings, with the reason."""
    from .verdicts import findings

    with _readable():
        return findings.falsified(experiment_folder, experiment, instrument.source.hash, predictions)


@pytest.fixture
def verdict(
    request: pytest.FixtureRequest,
    cls: str,
    verdicts: Mapping[tuple[str, str], Any],
    refuted: Mapping[tuple[str, str], str],
    record_property: Callable[[str, object], None],
) -> Any:
    """The verdict that the test asserts. Inconclusive is an outcome of its own and ends the test here.

    What is written down as falsified is xfail(strict): the day that changes, the suite is red.
    """
    mark = request.node.get_closest_marker("prediction")
    if mark is None or (mark.args[0], cls) not in verdicts:
        known = ", ".join(dict.fromkeys(key[0] for key in verdicts))
        pytest.fail(f"mark the test with prediction(ID), ID one of {known}", pytrace=False)
    found = verdicts[mark.args[0], cls]
    shown = {k: v for k, v in found.as_row().items() if k != "details"}
    record_property(VERDICT, json.dumps(shown))
    if not found.control:
        from .verdicts.judging import require_controls

        with _readable():
            require_controls(list(verdicts.values()))
    expected = refuted.get((found.prediction, cls))
    if expected:
        request.applymarker(pytest.mark.xfail(reason=expected, strict=True, raises=AssertionError))
    if found.outcome == "inconclusive":
        if expected:
            pytest.fail(f"written down as falsified, now inconclusive: {found.reason}", pytrace=False)
        if not _option(request.config, "strict-verdicts"):
            raise Inconclusive(found.reason)
    return found


# Outcomes and summary


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell an inconclusive verdict from a skip; give a failure its evidence."""
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, Inconclusive):
        report.inconclusive = True  # type: ignore[attr-defined]
    given = getattr(item, "funcargs", {})
    if report.failed and report.when == "call" and given.keys() >= {VERDICT, "experiment_folder"}:
        report.sections.append((VERDICT, str(given[VERDICT])))  # pytest cuts what an assertion says
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """`?` for inconclusive."""
    if getattr(report, "inconclusive", False):
        return "inconclusive", "?", "INCONCLUSIVE"
    return None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under xdist fixtures live in workers: what they judged goes to the process that has the terminal."""
    if _is_worker(session.config):
        session.config.workeroutput[VERDICT] = session.config.stash[_REPORT]  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of xdist judged; another one that judged the same experiment says the same."""
    node.config.stash[_REPORT].update(getattr(node, "workeroutput", {}).get(VERDICT, {}))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The verdict table, the strength by layer and step, and where the report is."""
    for name, (page, *lines) in sorted(config.stash[_REPORT].items()):
        terminalreporter.section(name)
        for line in lines[terminalreporter.hasmarkup]:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"report: {page}")


def _summary(judged: list[Any], study: Any, experiment: Any, page: Path) -> tuple[str, list[str], list[str]]:
    from .report import tables

    plain, coloured = (tables.summary(judged, study, experiment, colour=c) for c in (False, True))
    return str(page), plain, coloured


@contextmanager
def _readable() -> Iterator[None]:
    """An error that a person can act on is one line, not a traceback."""
    try:
        yield
    except NotMeasurable as error:
        pytest.skip(str(error))
    except EmergenceError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None  # said once, not with its cause


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except EmergenceError as error:
        raise pytest.UsageError(str(error)) from None


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workeroutput")


def _experiment(config: pytest.Config, folder: Path) -> Any:
    path = _option(config, "config") or folder / "config.yaml"
    model, steps, seeds = (_option(config, name) for name in ("model", "steps", "seeds"))
    return _load(path, model, steps, seeds, tuple(_option(config, "param")))


@functools.cache
def _load(
    path: Path, model: str | None, steps: str | None, seeds: int | None, params: tuple[str, ...]
) -> Any:
    from .config import loading as config

    overrides = dict(config.parse_override(p) for p in params)
    if model:
        overrides["model"] = model
    loaded = config.load(path, overrides)
    return config.narrowed(loaded, steps, seeds)


@functools.cache
def _predictions(folder: Path) -> Any:
    from .verdicts import judging as verdicts

    return verdicts.load_predictions(folder / "predictions.py")


def _on_record(config: pytest.Config, folder: Path, experiment: Any, weights: str | None = None) -> None:
    """Refuse what would make a record in findings.json untrue."""
    from .verdicts import findings

    findings.same_version(folder, _predictions(folder))
    if _option(config, "record-findings"):
        findings.recordable(folder, experiment, weights)
