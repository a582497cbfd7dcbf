"""What is reported upstream happens with the pinned versions, as the page shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

TEXT = (ROOT / "docs" / "upstream.md").read_text(encoding="utf-8")
REPORTS = re.findall(r"^## (.*?)$.*?^```python\n(.*?)^```\n+```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
TIMED = re.compile(r"\d+(?:\.\d+)?(?= (?:GFLOP/s|ns an element))")


def test_every_report_has_a_reproduction_and_its_output() -> None:
    assert len(REPORTS) == TEXT.count("\n## ") == 7


def test_the_versions_named_are_those_that_are_pinned() -> None:
    pinned = dict(
        re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements" / "cpu.txt").read_text(), re.MULTILINE)
    )
    named = dict(re.findall(r"(mlx|mlx-cpu|mlx-lm|NumPy) (\d+\.\d+\.\d+)", TEXT.partition("\n## ")[0]))
    assert {name: pinned[name.lower()] for name in named} == named
    assert len(named) == 4, "where one moved, run the reports again"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the page was made with MLX's CPU backend on Linux")
@pytest.mark.parametrize(("code", "shown"), [r[1:] for r in REPORTS], ids=[r[0] for r in REPORTS])
def test_a_report_can_be_seen(code: str, shown: str, tmp_path: Path) -> None:
    """Times differ from one machine to another; that they are far apart does not."""
    assert "emergence" not in code
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    plain, expected = (
        [line.rstrip() for line in TIMED.sub("N", text).splitlines()] for text in (ran.stdout, shown)
    )
    assert plain == expected
    times = [float(t) for t in TIMED.findall(ran.stdout)]
    if "GFLOP" in shown:
        assert times[0] < times[1] / 5
    elif times:
        assert all(slow > 3 * times[0] for slow in times[1:4])
