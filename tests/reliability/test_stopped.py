"""`emergence run`, stopped while it trains or before it can: one line, and nothing is lost."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from places import ROOT

PREDICTIONS = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("E", "it emerges", "sft", "words", "intermediate", "symbolic", "classifier"),
)
"""
TESTS = """
import pytest
pytestmark = pytest.mark.slow

@pytest.mark.prediction("E")
def test_it_emerges(verdict):
    assert verdict.outcome
"""
STEPS = (0, 2, 100)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An experiment whose training takes some seconds after its first checkpoint."""
    folder = tmp_path / "hypotheses" / "tiny"
    folder.mkdir(parents=True)
    tiny.write_config(folder, tiny.write_model(tmp_path / "model", n_layers=2, hidden=16), STEPS)
    (folder / "predictions.py").write_text(PREDICTIONS)
    (folder / "test_tiny.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    return tmp_path


def start(home: Path, **settings: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from emergence.cli.main import main; main()", "run", "tiny", "-q"]
    paths = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        command, cwd=home, env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}, **settings
    )


def until(found: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    for _ in range(6000):
        if there := found():
            return there
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.01)
    raise TimeoutError


def stopped(home: Path, stop: Callable[[int], object], **settings: Any) -> tuple[int, bytes]:
    """Start it, stop it once its first checkpoint is in the store; its exit code and what it said."""
    with start(home, stderr=subprocess.PIPE, **settings) as process:
        try:
            until(lambda: list(home.glob(".emergence/runs/*.partial/checkpoints/0000002")), process)
            until(lambda: list(home.glob(".emergence/runs/*.holder")), process)
            stop(process.pid)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    return process.returncode, said


def assert_stopped_well(home: Path, code: int, said: bytes) -> None:
    assert code == 130, said
    assert b"interrupted; run it again to go on where it stopped" in said.strip().splitlines()[-1]
    assert b"Traceback" not in said
    (record,) = home.glob(".emergence/experiments/tiny/results/run_*.json")
    assert json.loads(record.read_text())["status"] == "interrupted"
    (state,) = home.glob(".emergence/runs/*.partial/resume.json")
    assert 2 <= json.loads(state.read_text())["record"]["state"]["step"] < STEPS[-1]


@pytest.mark.slow
def test_a_run_stopped_by_a_signal_keeps_what_it_reached_and_the_next_goes_on(home: Path) -> None:
    def interrupt(process: int) -> None:
        os.kill(process, signal.SIGINT)

    code, said = stopped(home, interrupt, stdout=subprocess.DEVNULL)
    assert_stopped_well(home, code, said)
    (run,) = home.glob(".emergence/runs/*.partial")
    before = (run / "checkpoints/0000002/adapters.safetensors").stat()

    with start(home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    whole = run.with_suffix("") / "checkpoints"
    assert {p.name for p in whole.iterdir()} == {f"{step:07d}" for step in STEPS}
    after = (whole / "0000002/adapters.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "trained once"


@pytest.mark.slow
def test_a_run_that_is_terminated_keeps_what_it_reached(home: Path) -> None:
    code, said = stopped(home, lambda pid: os.kill(pid, signal.SIGTERM), stdout=subprocess.DEVNULL)
    assert_stopped_well(home, code, said)


@pytest.mark.slow
def test_a_run_without_the_space_for_it_is_one_line_and_trains_nothing(home: Path) -> None:
    (home / "conftest.py").write_text(
        "import shutil\n"
        "usage = shutil.disk_usage('.')\n"
        "shutil.disk_usage = lambda path: usage._replace(free=1000)\n"
    )
    with start(home, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    line = said.decode().strip().splitlines()[-1]
    assert re.fullmatch(
        r"emergence: \S+: needs .* kB, has 1\.0 kB free; free some space, or .* --store", line
    )
    assert b"Traceback" not in out + said
    assert not list(home.glob(".emergence/runs/*"))


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_stops_it_once_and_well(home: Path) -> None:
    """The terminal sends Ctrl-C to the whole foreground group; a second one would cut the training short."""
    ours, theirs = pty.openpty()

    def own_terminal() -> None:  # as a shell in a window has it
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    code, said = stopped(
        home,
        lambda pid: os.write(ours, b"\x03"),
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        preexec_fn=own_terminal,
    )
    assert_stopped_well(home, code, said)
    os.close(ours)
    os.close(theirs)
