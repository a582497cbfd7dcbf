"""A look costs no import of what only work needs: SciPy's statistics, pandas, transformers take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.test_cli import CONFIG, PREDICTIONS, _with_results, _with_runs
from places import python_path

HEAVY = (
    "matplotlib", "mlx_lm", "pandas", "pyarrow", "scipy.stats", "sklearn", "torch", "transformers", "xarray",
    "distributed",
)  # fmt: skip
LOOKS = (
    ["list"], ["info", "parity"], ["status", "parity", "--all"], ["report", "parity"], ["models"],
    ["store", "list"], ["store", "verify"], ["new", "another"], ["run", "parity", "--dry-run"], ["--help"],
)  # fmt: skip
PROGRAM = """
import contextlib, io, json, sys
from emergence.cli import main

looks, heavy, found = json.loads(sys.argv[1]), json.loads(sys.argv[2]), {}
for look in looks:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main.main(look)
    except SystemExit as ended:
        found[" ".join(look)] = [ended.code, [name for name in heavy if name in sys.modules]]
print(json.dumps(found))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with an experiment, a run and its results."""
    folder = tmp_path / "hypotheses" / "parity"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "predictions.py").write_text(PREDICTIONS)
    _with_runs(_with_results(tmp_path), "success")
    return tmp_path


def _seen(place: Path, looks: list[list[str]]) -> dict[str, tuple[int, list[str]]]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(looks), json.dumps(HEAVY)]
    environment = {"PYTHONPATH": python_path(), "HF_HUB_OFFLINE": "1", "HOME": str(place), "PATH": ""}
    ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_no_verb_that_looks_loads_what_only_work_needs(place: Path) -> None:
    seen = _seen(place, list(LOOKS))
    assert seen == {" ".join(look): [0, []] for look in LOOKS}


def test_a_verb_that_works_loads_it(place: Path) -> None:
    """Else the names above would be misspelt, and the test could not fail."""
    (_, loaded), = _seen(place, [["models", "--check", "nonsense"]]).values()  # fmt: skip
    assert {"mlx_lm", "transformers"} <= set(loaded)
