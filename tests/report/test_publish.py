"""Results of one experiment: whole and of one job, whoever else publishes and whenever one is killed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import faults
import pytest
import report_case as case

from emergence.errors import UsageError
from emergence.report import page as report
from emergence.report import results

STUDY = case.study(1, steps=(0, 10), n_layers=3, per_class=2)
pytestmark = pytest.mark.usefixtures("quick")


def silent(line: str) -> None:
    pass


def publish(root: Path, reason: str, study: Any = STUDY, notice: Callable[[str], None] = silent) -> None:
    """What the main job does last, with verdicts that all give the same reason."""
    case.write(
        folder_of(root),
        study,
        reason,
        train_logs={},
        notice=notice,
        decode=lambda i: f"{case.decode(i)} {reason}",
    )


def folder_of(root: Path) -> Path:
    return root / "experiments" / "small"


def told(root: Path) -> set[str]:
    """The jobs that verdicts.json, report.json and the page are of; each is read whole."""
    folder = folder_of(root)
    texts = [
        *{v.reason for v in results.read_verdicts(folder)[1]},
        *json.loads((folder / "report.json").read_text())["decoded"].values(),
    ]
    page = (folder / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    of = {job for job in ("first", "second") for text in texts if text.endswith(job)}
    return of | {job for job in ("first", "second") if f">{job}<" in page}


def assert_published(root: Path, *jobs: str) -> None:
    """Everything is there, whole, of one of these jobs, and nothing else is."""
    folder = folder_of(root)
    of = told(root)
    assert len(of) == 1, f"a mixture of {of}"
    assert of <= set(jobs)
    opened = results.open_run(folder)
    assert len(opened.readings)
    assert len(opened.strength)
    before = (folder / "report.html").read_bytes()
    assert report.render(folder, root / "again.html").read_bytes() == before
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names - {"report.lock"} == {
        "verdicts.json", "report.json", "report.html", "readings.parquet", "strength.parquet", "strength.csv",
        ".fingerprint", "figures/training.svg",
    }  # fmt: skip


def until(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(path)


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_of_two_that_publish_at_once_one_waits_and_the_results_are_of_one_of_them(
    at: str, tmp_path: Path
) -> None:
    root, stopped, told_ = tmp_path / "store", tmp_path / "stopped", tmp_path / "told"
    publish(root, "first")
    whole = len(faults.operations(folder_of(root), lambda: publish(root, "first")))
    pause = {"first": 8, "middle": whole // 2, "last": whole - 6}[at]

    def one() -> None:
        def fault(number: int, name: str) -> None:
            if number == pause:
                stopped.touch()
                until(told_)  # the other one waits for us, or is through: without a lock it would be

        with faults.Disk(folder_of(root), fault):
            publish(root, "first")

    def other() -> None:
        until(stopped)
        publish(root, "second", notice=lambda line: told_.write_text(line))
        told_.touch()

    jobs = [faults._fork(one), faults._fork(other)]
    assert [faults._status(job) for job in jobs] == [0, 0]
    assert "waiting for it to finish" in told_.read_text()
    assert_published(root, "second")


@pytest.mark.parametrize(
    "before", [pytest.param(("replace",), id="renames"), pytest.param((), id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("readings", ["same", pytest.param("other", marks=pytest.mark.slow)])
def test_a_job_killed_while_it_publishes_leaves_whole_files_and_the_next_one_puts_all_right(
    readings: str, before: tuple[str, ...], tmp_path: Path
) -> None:
    study = STUDY if readings == "same" else case.study(1, steps=(0, 20), n_layers=3, per_class=2)
    publish(tmp_path / "first", "first")
    shutil.copytree(tmp_path / "first", tmp_path / "trial")
    done = faults.operations(
        folder_of(tmp_path / "trial"), lambda: publish(tmp_path / "trial", "second", study)
    )
    mixed = 0
    for at, (last, name) in enumerate(pairwise(done), 2):
        if (before and name not in before) or last == name == "write":
            continue
        root = tmp_path / str(at)
        shutil.copytree(tmp_path / "first", root)
        assert faults.killed_at(folder_of(root), at, lambda root=root: publish(root, "second", study))
        mixed += refused_as_mixed(root)
        opened = results.open_run(folder_of(root))
        assert set(opened.strength["step"]) | set(opened.readings["step"]) <= {0, 10, 20}
        publish(root, "second", study)
        assert_published(root, "second")
    assert mixed, "a kill between the two files was among them"


def refused_as_mixed(root: Path) -> bool:
    """Whether verdicts and data are of two jobs; then no page is drawn of them, and else one of one."""
    try:
        report.render(folder_of(root), root / "page.html")
    except UsageError as error:
        return "are of two runs" in str(error) and len(told(root)) == 2
    page = (root / "page.html").read_text()
    assert (">first<" in page) != (">second<" in page)
    return False
