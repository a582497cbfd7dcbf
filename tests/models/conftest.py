from __future__ import annotations

from pathlib import Path

import pytest
import tiny


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "model")
