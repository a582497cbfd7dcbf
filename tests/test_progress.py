"""Progress is told where a person looks, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from emergence import progress
from emergence.progress import Bars, Lines, Progress, Total


def _text(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_silence_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.SILENT.task("train", 3) as task:
        task.advance(3, "loss 1")
    progress.SILENT.line("x")
    assert capfd.readouterr() == ("", "")


def test_lines_tell_rate_time_left_note_and_end() -> None:
    stream = io.StringIO()
    lines = Lines(stream, every=0.0)
    with lines.task("train sft seed 0", 3, "step") as task:
        task.advance(1, "loss 0.31")
        task.advance(1)
        task.advance(1, "loss 0.20")
    said = stream.getvalue().splitlines()
    assert len(said) == 3
    assert re.fullmatch(r"train sft seed 0: 1/3 step, [\d.]+ step/s, \d+:\d\d left, loss 0.31", said[0])
    assert "loss 0.31" in said[1], "a note stays until the next one"
    assert re.fullmatch(r"train sft seed 0: 3 steps in \d+:\d\d, loss 0.20", said[2])


def test_lines_hold_their_tongue_between_two_moments() -> None:
    stream = io.StringIO()
    with Lines(stream, every=3600.0).task("read", 1000, "prompt") as task:
        for _ in range(1000):
            task.advance()
    assert stream.getvalue().count("\n") == 1


def test_work_that_stops_says_how_far_it_came() -> None:
    stream = io.StringIO()

    def work() -> None:
        with Lines(stream).task("train", 10) as task:
            task.advance(4)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        work()
    assert "train: stopped after 4 of 10 steps in 0:00" in stream.getvalue()


def test_bars_leave_one_line_for_each_piece_of_work_even_nested() -> None:
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100), fresh_line=True)
    with bars.task("all runs", 2, "run") as outer:
        for i in range(2):
            with bars.task(f"train [red]{i}[/]", 5) as inner:
                inner.advance(5, "loss [bold]0.1")
                bars.line(f"step 5: accuracy {i}")
            outer.advance(1)
    text = _text(stream)
    assert text.startswith("\n"), "pytest's dots end before the first bar begins"
    assert "train [red]0[/]: 5 steps in 0:00, loss [bold]0.1" in text
    assert "step 5: accuracy 1" in text
    assert "all runs: 2 runs in 0:00" in text
    assert "\x1b[?25h" in stream.getvalue(), "the cursor is shown again"


def test_cursor_comes_back_after_an_exception() -> None:
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100))
    with pytest.raises(KeyboardInterrupt), bars.task("train", 5):
        raise KeyboardInterrupt
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")
    with bars.task("train again", 1) as task:
        task.advance()
    assert "train again: 1 step in" in _text(stream)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "quiet", "kind"),
    [
        (io.StringIO(), {"TERM": "xterm"}, False, Lines),
        (_Terminal(), {"TERM": "xterm"}, False, Bars),
        (_Terminal(), {"TERM": "dumb"}, False, Lines),
        (_Terminal(), {"TERM": "xterm", "CI": "true"}, False, Lines),
        (_Terminal(), {"TERM": "xterm"}, True, Progress),
    ],
    ids=["a file", "a terminal", "a dumb terminal", "CI", "quiet"],
)
def test_kind_of_progress_follows_the_stream(
    stream: io.StringIO, environment: dict[str, str], quiet: bool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert type(progress.for_stream(stream, quiet)) is kind


@given(st.floats(0, 1e6))
def test_clock_reads_back_to_the_second(seconds: float) -> None:
    parts = [int(p) for p in progress.clock(seconds).split(":")]
    assert sum(p * 60**i for i, p in enumerate(reversed(parts))) == round(seconds)
    assert all(p < 60 for p in parts[1:])


@pytest.mark.parametrize(
    ("done", "seconds", "text"), [(0, 1.0, ""), (10, 4.0, "2.5 step/s"), (1, 8.5, "8.5 s/step")]
)
def test_rate_reads_well_fast_and_slow(done: int, seconds: float, text: str) -> None:
    assert progress.rate(done, seconds, "step") == text


_TEST_FILE = """
import pytest

@pytest.fixture(scope="session")
def work(pytestconfig):
    from emergence.progress import for_pytest
    with for_pytest(pytestconfig) as shown:
        print("captured print")
        with shown.task("train sft", 3) as task:
            task.advance(3, "loss 0.5")
        yield

def test_a(work, capfd):
    assert True

def test_b(work):
    assert False
"""


def _pytest(folder: Path, *options: str, **streams: int) -> subprocess.CompletedProcess[str]:
    (folder / "test_work.py").write_text(_TEST_FILE)
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm", "COLUMNS": "100"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(command, cwd=folder, env=environment, check=False, text=True, timeout=60, **kept)  # type: ignore[call-overload, no-any-return]


def test_under_pytest_lines_go_past_the_capture_to_stderr(tmp_path: Path) -> None:
    ran = _pytest(tmp_path)
    assert "train sft: 3 steps in 0:00, loss 0.5" in ran.stderr
    assert "train sft" not in ran.stdout, "never in a test's captured output"
    assert "captured print" not in ran.stderr
    assert "1 failed, 1 passed" in ran.stdout


def test_quiet_pytest_says_nothing(tmp_path: Path) -> None:
    assert _pytest(tmp_path, "-q").stderr == ""


def test_bars_on_a_real_terminal_do_not_garble_pytest(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        _pytest(tmp_path, stdout=theirs, stderr=theirs)
    finally:
        os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        told += part
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told.decode()).replace("\r\n", "\n").splitlines()
    final = [line.rsplit("\r", 1)[-1].rstrip() for line in lines]
    assert "train sft: 3 steps in 0:00, loss 0.5" in final
    assert any("1 failed, 1 passed" in line for line in final)


def test_each_task_that_ends_says_how_far_all_is_and_how_long_the_rest_may_take() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.expect({"train": 30.0, "read": 10.0})
    with lines.task("other", 1):
        pass
    with lines.task("train", 3) as task:
        time.sleep(0.06)
        task.advance(2)  # it may stop early: then it has done what there was to do
    with lines.task("read", 2) as task:
        task.advance(2)
    said = stream.getvalue().splitlines()
    assert "of all" not in said[0]
    assert said[1].endswith("; 75 % of all, about 0:00 left")
    assert said[2].endswith("; 100 % of all")


def test_what_an_earlier_run_had_done_makes_this_one_no_faster() -> None:
    total = Total({"train": 100.0})
    total.move("train", 0.5, 0.0)
    assert total.left == ""
    time.sleep(0.1)
    total.move("train", 0.6, 0.1)  # a tenth in 0.1 s or more, so four tenths take 0.4 s or more
    assert total.share == pytest.approx(0.6)
    assert total.seconds_left() >= 0.4


def test_a_bar_of_all_stands_above_the_bar_of_each_task() -> None:
    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=100))
    bars.expect({"train": 3.0, "read": 1.0})
    with bars.task("load", 1) as task:
        task.advance()
    assert "all" not in _text(stream)
    with bars.task("train", 3) as task:
        time.sleep(0.06)
        task.advance(2)
        bars._bars.refresh()
        drawn = _text(stream).splitlines()
    (of_all,) = [line for line in drawn if line.startswith("all")][-1:]
    assert "50 %" in of_all
    assert "left" in of_all
    (own,) = [line for line in drawn if line.startswith("train")][-1:]
    assert "2/3" in own
    with bars.task("read", 1) as task:
        task.advance()
    assert "100 %" in _text(stream)
