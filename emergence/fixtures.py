"""The session fixtures, switched on by `pytest_plugins = ["emergence.fixtures"]` in a root conftest.py.

A test that asks for `experiment`, or for a fixture that follows from it, belongs to the experiment whose
`config.yaml` lies beside it. A test that asks for `verdict` runs once for each row of `predictions.py` and
each class; with the mark `prediction(ID)` for that row alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .errors import EmergenceError, NotMeasurable
from .plugin import SUMMARY, VERDICT, Inconclusive, belongs, held, is_worker, option
from .tracking import parse, reporting

pytest_plugins = ["emergence.plugin"]
"""Also where the loading of installed plugins is turned off: then its options have their defaults."""

UNKNOWN = ("unknown", "unknown")
"""Claim and class of a test whose experiment cannot be read: it is told in one line once all is collected."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The table is the tests: one for each claim and class of the folder that a test lies in."""
    if not belongs(metafunc.definition):
        return
    folder = Path(metafunc.definition.path).parent
    metafunc.parametrize("experiment", [folder], indirect=True, scope="session", ids=[folder.name])
    if VERDICT in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("prediction")
        pairs = _claims(metafunc.config, folder, mark.args[0] if mark else None)
        metafunc.parametrize(("prediction", "cls"), pairs, ids=["-".join(pair) for pair in pairs])


def _claims(config: pytest.Config, folder: Path, named: str | None) -> list[tuple[str, str]]:
    try:
        experiment = held(config, folder)
        ids = [p.id for p in experiment.predictions] if named is None else [named]
        return [(id_, cls) for id_ in ids for cls in experiment.config.task.classes]
    except EmergenceError:  # here it would be a traceback for each file
        return [UNKNOWN]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a folder that is collected as a whole and asserts some of its claims only."""
    wholes = [Path(arg).resolve() for arg in config.args if "::" not in arg and Path(arg).is_dir()]
    asserted: dict[Path, set[str]] = {}
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if belongs(item) and "prediction" in params:
            asserted.setdefault(Path(item.path).parent, set()).add(params["prediction"])
    for folder, ids in asserted.items():
        if UNKNOWN[0] in ids or not any(folder.resolve().is_relative_to(whole) for whole in wholes):
            continue
        if missing := [p.id for p in held(config, folder).predictions if p.id not in ids]:
            raise pytest.UsageError(
                f"{folder / 'predictions.py'}: no test asserts {', '.join(missing)}; "
                "add `def test_claim(verdict): assert verdict.supported, verdict`, which asserts every row"
            )


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """The header of the main job, only where it runs; whatever cannot be meant ends it here, in one line."""

    def asking(fixture: str) -> list[Path]:
        asked = (i for i in items if belongs(i) and fixture in getattr(i, "fixturenames", ()))
        return [Path(i.path).parent for i in asked]

    folders, claiming = dict.fromkeys(asking("experiment")), set(asking("predictions"))
    if not folders or is_worker(config):
        return []
    from . import backend

    with _usage():
        backend.require()
        parse(option(config, "report-to"))
        _distinct(config, list(folders))
        lines = [f"device: {backend.device()}, BLAS: {backend.install()}, store: {_store(config, folders)}"]
        for folder in folders:
            lines += _announced(config, folder, folder in claiming)
    return lines


def _distinct(config: pytest.Config, folders: list[Path]) -> None:
    from .cli.catalogue import distinct

    if option(config, "config") and len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise pytest.UsageError(
            f"--config is for one experiment, {len(folders)} are here ({names}); name one"
        )
    distinct({folder: held(config, folder).config.name for folder in folders})


def _store(config: pytest.Config, folders: Mapping[Path, None]) -> str:
    return ", ".join(dict.fromkeys(str(held(config, folder).store.root) for folder in folders))


def _announced(config: pytest.Config, folder: Path, claims: bool) -> list[str]:
    """What will be run; claims are checked before anything is loaded. Without claims there is no table."""
    from . import models

    experiment = held(config, folder)
    settings = experiment.config
    models.require_known(settings.model)
    arms = ", ".join(f"{a.name} × {len(a.seeds)} to step {a.max_steps}" for a in settings.arms)
    line = f"{settings.name}: model {settings.model}, config {settings.hash}; {arms or 'nothing is trained'}"
    if claims:
        _require_recordable(config, experiment)
    return [line, *(experiment.notices if claims else settings.notices)]


def _require_recordable(config: pytest.Config, experiment: Any, weights: str | None = None) -> None:
    """Refuse what would make a record in findings.json untrue."""
    from . import verdicts

    verdicts.same_version(experiment.folder, experiment.predictions)
    if option(config, "record-findings"):
        verdicts.recordable(experiment.folder, experiment.config, weights)


# Fixtures, in pipeline order


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Iterator[Any]:
    """Bars on a terminal, lines elsewhere, nothing under `-q`."""
    from .progress import for_pytest

    with for_pytest(pytestconfig) as shown:
        yield shown


@pytest.fixture(scope="session")
def experiment(request: pytest.FixtureRequest, progress: Any) -> Iterator[Any]:
    """The `Experiment` of the folder that the test file lies in, with the options applied."""
    with _readable():
        found = held(request.config, Path(request.param))
        found.store.tell = progress.line
        settings = found.config
    place = found.store.root / "experiments" / settings.name
    said, named = settings.public.model_dump(mode="json"), option(request.config, "report-to")
    with reporting(named, progress, settings.name, place, said) as found.progress:
        yield found


@pytest.fixture(scope="session")
def predictions(experiment: Any) -> Any:
    """The pre-registered table of the experiment, a `verdicts.Table`."""
    with _readable():
        return experiment.predictions


@pytest.fixture(scope="session")
def store(experiment: Any) -> Any:
    """Where runs are kept, a `store.Store`."""
    return experiment.store


@pytest.fixture(scope="session")
def lens(experiment: Any) -> Any:
    """A `LogitLens` on the base model, proven."""
    with _readable():
        return experiment.lens


@pytest.fixture(scope="session")
def model(experiment: Any, lens: Any) -> Any:
    """The base model, an `mlx.nn.Module`."""
    return experiment.model


@pytest.fixture(scope="session")
def tokenizer(experiment: Any, lens: Any) -> Any:
    """The model's tokenizer, as `mlx_lm.load` gives it."""
    return experiment.tokenizer


@pytest.fixture(scope="session")
def controls(experiment: Any, predictions: Any, progress: Any) -> Any:
    """The controls that need no training, all of which held: a tuple of `readings.Control`."""
    from . import provenance

    with _readable():
        passed = experiment.controls
        for note in provenance.notes(experiment):
            progress.line(note)
    return passed


@pytest.fixture(scope="session")
def runs(experiment: Any, predictions: Any, controls: Any, pytestconfig: pytest.Config) -> Any:
    """Every arm × seed, trained or taken from the store, a tuple of `training.Run`."""
    with _readable():
        _require_recordable(pytestconfig, experiment, experiment.source.hash)
        return experiment.runs


@pytest.fixture(scope="session")
def study(experiment: Any, runs: Any) -> Any:
    """The readings of every layer of every checkpoint of every run, a `readings.Study`."""
    with _readable():
        return experiment.study


@pytest.fixture(scope="session")
def verdicts(experiment: Any, study: Any, pytestconfig: pytest.Config) -> dict[tuple[str, str], Any]:
    """All verdicts by (prediction, class); the report is written with them."""
    with _readable():
        judged = experiment.verdicts
        page = experiment.report()
        if option(pytestconfig, "record-findings"):
            experiment.record()
    from .report import tables

    plain, coloured = (tables.summary(judged, study, experiment.config, colour=c) for c in (False, True))
    pytestconfig.stash[SUMMARY][experiment.config.name] = (str(page), plain, coloured)
    return {(v.prediction, v.cls): v for v in judged}


@pytest.fixture(scope="session")
def refuted(experiment: Any, predictions: Any) -> dict[tuple[str, str], str]:
    """What is written down as falsified of these weights under these settings, with the reason."""
    from .verdicts import falsified

    with _readable():
        return falsified(experiment.folder, experiment.config, experiment.source.hash, predictions)


@pytest.fixture
def verdict(
    request: pytest.FixtureRequest,
    prediction: str,
    cls: str,
    verdicts: Mapping[tuple[str, str], Any],
    refuted: Mapping[tuple[str, str], str],
    record_property: Callable[[str, object], None],
) -> Any:
    """The verdict that the test asserts. Inconclusive is an outcome of its own and ends the test here.

    What is written down as falsified is xfail(strict): the day that changes, the suite is red.
    """
    if (prediction, cls) not in verdicts:
        known = ", ".join(dict.fromkeys(key[0] for key in verdicts))
        pytest.fail(
            f"mark the test with prediction(ID), ID one of {known}; it has {prediction}", pytrace=False
        )
    found = verdicts[prediction, cls]
    record_property(VERDICT, json.dumps({k: v for k, v in found.as_row().items() if k != "details"}))
    if not found.control:
        from .verdicts import require_controls

        with _readable():
            require_controls(list(verdicts.values()))
    expected = refuted.get((prediction, cls))
    if expected:
        request.applymarker(pytest.mark.xfail(reason=expected, strict=True, raises=AssertionError))
    if found.outcome == "inconclusive":
        if expected:
            pytest.fail(f"written down as falsified, now inconclusive: {found.reason}", pytrace=False)
        if not option(request.config, "strict-verdicts"):
            raise Inconclusive(found.reason)
    return found


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
