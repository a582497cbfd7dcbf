"""Every call of `emergence run` leaves a record, and every config on every model has results of its own."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime
from pathlib import Path

import faults
import numpy as np
import pytest

from emergence.errors import BrokenExperiment, UsageError
from emergence.report import records

START = datetime(2026, 1, 2, 3, 4, 5, 678)
ONE, OTHER = "a" * 12, "b" * 12
MODEL = "0123456789ab" * 5 + "cdef"


def a_record(status: str = "success") -> dict[str, object]:
    return records.run_record("parity", status, START, datetime(2026, 1, 2, 3, 4, 7), {}, {}, {})


def judged(root: Path, config: str, model: str = MODEL, at: int = 0) -> Path:
    """Results in their place, written at second `at`."""
    folder = records.place(root, "parity", config, model)
    folder.mkdir(parents=True)
    (folder / records.VERDICTS).write_text("{}")
    os.utime(folder / records.VERDICTS, (at, at))
    return folder


# Places


def test_results_of_another_config_or_model_have_another_place(tmp_path: Path) -> None:
    places = {records.place(tmp_path, "parity", c, m) for c in (ONE, OTHER) for m in (MODEL, "f" * 64)}
    assert len(places) == 4
    assert not list(tmp_path.iterdir()), "a place is only named"
    first = records.place(tmp_path, "parity", ONE, MODEL)
    assert first == tmp_path / "experiments" / "parity" / f"{ONE}-0123456789ab"


def test_only_folders_with_verdicts_are_known_the_last_judged_at_the_end(tmp_path: Path) -> None:
    assert records.known(tmp_path, "parity") == []
    new, old = judged(tmp_path, ONE, at=20), judged(tmp_path, OTHER, at=10)
    records.place(tmp_path, "parity", ONE, "c" * 64).mkdir()  # begun, and not judged
    for name in ("results", f"{ONE}-{ONE}.old", ""):  # `""`: results of the flat layout
        (old.parent / name).mkdir(exist_ok=True)
        (old.parent / name / records.VERDICTS).write_text("{}")
    assert records.known(tmp_path, "parity") == [old, new]
    assert records.known(tmp_path, "other") == []


def test_latest_is_what_was_marked_last_and_else_what_was_judged_last(tmp_path: Path) -> None:
    assert records.latest(tmp_path, "parity") is None
    new, old = judged(tmp_path, ONE, at=20), judged(tmp_path, OTHER, at=10)
    assert records.latest(tmp_path, "parity") == new
    records.mark_latest(old)  # the same config run again: its verdicts may be the older file
    assert records.latest(tmp_path, "parity") == records.newest(old.parent) == old
    (old / records.VERDICTS).unlink()
    assert records.latest(tmp_path, "parity") == new


@pytest.mark.parametrize("text", [b"", b"..", b"/etc", b"\xff\xfe", b"results\n"], ids=repr)
def test_a_mark_that_names_no_results_is_no_mark(text: bytes, tmp_path: Path) -> None:
    there = judged(tmp_path, ONE)
    (there.parent / records.LATEST).write_bytes(text)
    assert records.latest(tmp_path, "parity") == there


def test_a_mark_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    before, after = judged(tmp_path, ONE, at=20), judged(tmp_path, OTHER, at=10)
    whole = len(faults.operations(before.parent, lambda: records.mark_latest(before)))
    assert whole > 3
    for at in range(1, whole + 1):
        records.mark_latest(before)
        assert faults.killed_at(before.parent, at, lambda: records.mark_latest(after))
        assert (before.parent / records.LATEST).read_text().strip() in (before.name, after.name)


# Records


def test_a_record_has_the_keys_of_lazarus_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    path = records.write_record(tmp_path / "results", START, a_record())
    assert path.name == "run_20260102_030405_000678.json"
    (read,) = records.run_records(tmp_path)
    assert read == a_record() | {"file": path.name}
    assert read["duration_seconds"] == pytest.approx(1.999, abs=1e-3)
    assert list(read) == [
        "experiment_name", "status", "started_at", "finished_at", "duration_seconds", "run_results",
        "eval_results", "config", "error", "file",
    ]  # fmt: skip


def test_runs_of_one_instant_leave_a_record_each(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    go, each = tmp_path / "go", 20

    def write(status: str) -> None:
        while not go.exists():
            pass
        for _ in range(each):
            records.write_record(tmp_path / "results", START, a_record(status))

    jobs = [faults._fork(lambda status=status: write(status)) for status in ("success", "failed")]
    go.touch()
    assert [faults._status(job) for job in jobs] == [0, 0]
    statuses = [record["status"] for record in records.run_records(tmp_path)]
    assert (statuses.count("success"), statuses.count("failed")) == (each, each)


def test_records_come_oldest_first_also_beside_those_of_whole_seconds(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "run_20260102_030405.json").write_text('{"status": "old"}')
    for started in (START, START, START.replace(second=4)):
        records.write_record(results, started, a_record())
    assert [record["file"] for record in records.run_records(tmp_path)] == [
        "run_20260102_030404_000678.json",
        "run_20260102_030405.json",
        "run_20260102_030405_000678.json",
        "run_20260102_030405_000678_2.json",
    ]


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_damaged_record_is_said_to_be_so_and_hides_no_other(text: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "run_1.json").write_text(text)
    (results / "run_2.json").write_text("")  # being written now, or its writer was killed
    records.write_record(results, START, a_record())
    damaged, sound = records.run_records(tmp_path)
    assert (damaged["status"], damaged["error"]) == ("damaged", "run_1.json is not a JSON object")
    assert sound["status"] == "success"


def test_a_record_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def full(number: int, name: str) -> None:
        if name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BrokenExperiment, match="the disk is full"), faults.Disk(tmp_path, full):
        records.write_record(tmp_path, START, a_record())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be a store"):
        records.write_record(tmp_path / "file", START, a_record())


def test_plain_values_are_those_that_json_has() -> None:
    value = {1: np.array([1.0, np.nan]), "x": (np.float32(2), {None}), "y": Path("a"), "z": float("inf")}
    shown = records.plain(value)
    assert shown == {"1": [1.0, None], "x": [2.0, [None]], "y": "a", "z": None}
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
