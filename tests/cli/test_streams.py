"""The verbs write to every terminal, and to a pipe whose reader goes away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import report_case as case

from emergence import wording
from emergence.report import records, tables

EMERGENCE = [sys.executable, "-c", "from emergence.cli.main import main; main()"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, its results, and the record of a call whose error nobody can encode."""
    place = tmp_path_factory.mktemp("streams")
    folder = place / "hypotheses" / "parity"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("name: parity\n")
    results = records.place(place / ".emergence", "parity", "c" * 12, "e" * 12)
    results.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emergence.report.figures.write", lambda *arguments: [])
        case.write(results, case.study(1, steps=(0, 10), n_layers=2, per_class=2))
    (results.parent / "results").mkdir()
    (results.parent / "results" / "run_1.json").write_text('{"status": "failed", "error": "\\ud83d 漢"}')
    return place


def environment(encoding: str) -> dict[str, str]:
    return os.environ | {"PYTHONIOENCODING": encoding}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_status_is_told_in_every_encoding(encoding: str, place: Path) -> None:
    ended = subprocess.run(
        [*EMERGENCE, "status", "parity"], cwd=place, env=environment(encoding), capture_output=True
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    said = ended.stdout.decode(encoding)
    counts = tables.counts(case.verdicts())
    assert wording.encodable("E2 ✗ falsified", encoding) in said
    assert counts in said
    assert wording.encodable("failed (0.0 s): \ud83d 漢", encoding) in said


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_an_error_is_told_in_every_encoding(encoding: str, place: Path) -> None:
    ended = subprocess.run(
        [*EMERGENCE, "status", "pärity漢"], cwd=place, env=environment(encoding), capture_output=True
    )
    assert ended.returncode == 2
    assert wording.encodable("emergence: unknown experiment 'pärity漢'", encoding) in ended.stderr.decode(
        encoding
    )


@pytest.mark.parametrize("verb", [["status", "parity"], ["status", "parity", "--json"], ["--help"], ["list"]])
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_read_enough_is_no_failure(verb: list[str], buffered: str, place: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as early as it can be
    ended = subprocess.run(
        [*EMERGENCE, *verb], cwd=place, stdout=write, stderr=subprocess.PIPE,
        env=environment("utf-8") | {"PYTHONUNBUFFERED": buffered},
    )  # fmt: skip
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
