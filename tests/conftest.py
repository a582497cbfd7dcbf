"""What all tests share: shape annotations, which are checked here alone, and one trained experiment."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jaxtyping
import pytest

# Benchmarks measure time, tests do not. A gate says the same thing twice: it draws the same examples.
hypothesis.settings.register_profile("any machine", deadline=None, derandomize=True)
hypothesis.settings.load_profile("any machine")

BEARTYPE = "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
_SHAPE = re.compile(r"\[(np\.nd|mx\.)array, ")
_jaxtyped = jaxtyping.jaxtyped


def _where_shapes_are(*, typechecker: Any) -> Callable[[Any], Any]:
    """`jaxtyped`, but for what has no shape in its annotations: mypy checks the rest, and at no cost.

    The hook wraps every function and dataclass; wrapping them all takes the tests twice the time.
    """
    checked = _jaxtyped(typechecker=typechecker)

    def decorate(thing: Any) -> Any:
        annotations = getattr(thing, "__annotations__", {}).values()
        return checked(thing) if any(_SHAPE.search(str(said)) for said in annotations) else thing

    return decorate


jaxtyping.jaxtyped = _where_shapes_are  # where the hook looks it up
jaxtyping.install_import_hook("emergence", "beartype.beartype")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """What needs an extra: in pyproject.toml it would end `pytest hypotheses` where the extra is missing."""
    config.addinivalue_line("filterwarnings", BEARTYPE)
    if getattr(config.option, "benchmark_only", None) is False:
        config.option.benchmark_skip = True


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have one small figure."""
    import report_case

    monkeypatch.setattr("emergence.report.figures.write", report_case.draw_little)


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory) -> Path:
    """The folder of a tiny experiment, trained and read by the worker that asks first; see `trained.py`."""
    import trained

    base = tmp_path_factory.getbasetemp()
    return trained.made_once(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
