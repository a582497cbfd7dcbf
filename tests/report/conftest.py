"""What tests of the report share: a study that is written out once, with one figure in place of ten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_case as case

from emergence.report import figures


def draw_little(folder: Path, study: Any, logs: Any) -> list[Path]:
    """One figure; ten take seconds, and `test_figures` draws them."""
    folder.mkdir(exist_ok=True)
    figures.write_atomic(folder / "training.svg", figures._figure(1, 1, 1.0, 1.0)[0].savefig)
    return [folder / "training.svg"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "write", draw_little)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of `case.study()`, with everything that a run leaves in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write", draw_little)
        yield case.write(tmp_path_factory.mktemp("results")).parent
