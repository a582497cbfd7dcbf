"""Where things lie, for tests that start processes or read the repository's own files."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
HYPOTHESES = ROOT / "hypotheses"
EXAMPLE = TESTS / "support" / "example"
"""An experiment of three operations with operands of their own, two styles, thirteen claims. It stays as
it is, whatever becomes of the shipped one."""


def python_path(*folders: Path) -> str:
    """`PYTHONPATH` of a process that imports `emergence` and what tests share, as this one does."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join(
        [*map(str, (*folders, ROOT, TESTS, TESTS / "support")), *([given] if given else [])]
    )
