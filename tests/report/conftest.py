"""What tests of the report share: a study that is written out once, with one figure in place of ten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
import report_case as case

from emergence.report import figures
from emergence.report import page as report


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `case.study()`, with everything that a run leaves in it; for looking only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write", case.draw_little)
        return case.write(tmp_path_factory.mktemp("results")).parent


@pytest.fixture(scope="session")
def page(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[chromium.Page, Path]]:
    """A browser of its own, and the path of `report.html`."""
    executable = chromium.found()
    assert executable
    with chromium.browser(executable, tmp_path_factory.mktemp("profile")) as opened:
        yield opened, written / report.PAGE
