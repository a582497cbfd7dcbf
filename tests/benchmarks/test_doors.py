"""What a person waits for at the door: the processor time of each verb that looks, in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.test_cli import CONFIG, PREDICTIONS, _with_results, _with_runs
from places import python_path

from emergence.models.loading import EMBEDDED, resolve
from emergence.store import Store

LOOKS = (
    "list", "info parity", "status parity", "report parity", "models", "store list", "run parity --dry-run",
)  # fmt: skip
MOST, MOST_OF_SHOW = 1.0, 6.0
"""Seconds of processor time; `show` loads a model and proves it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with an experiment, its results, and the embedded model converted."""
    root = tmp_path_factory.mktemp("doors")
    folder = root / "hypotheses" / "parity"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "predictions.py").write_text(PREDICTIONS)
    _with_runs(_with_results(root), "success")
    resolve(EMBEDDED, Store(root / ".emergence"))
    return root


def _processor_seconds(place: Path, *verb: str) -> float:
    environment = os.environ | {
        "PYTHONPATH": python_path(),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    before = os.times()
    command = [sys.executable, "-m", "emergence", *verb]
    ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    after = os.times()
    assert ran.returncode == 0, ran.stderr
    return (after.children_user - before.children_user) + (after.children_system - before.children_system)


@pytest.mark.parametrize("verb", LOOKS)
def test_a_look_takes_less_than_a_second(benchmark: Any, place: Path, verb: str) -> None:
    took: list[float] = []
    benchmark.pedantic(
        lambda: took.append(_processor_seconds(place, *verb.split())), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["processor_seconds"] = min(took)
    assert min(took) < MOST


def test_a_prompt_is_shown_in_less_than_six_seconds(benchmark: Any, place: Path) -> None:
    took: list[float] = []
    benchmark.pedantic(
        lambda: took.append(_processor_seconds(place, "show", "7 * 8 = ")), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["processor_seconds"] = min(took)
    assert min(took) < MOST_OF_SHOW
