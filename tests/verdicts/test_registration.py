"""Whether the table was fixed before training: by git, where there is one."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from places import HYPOTHESES

from emergence.store import files
from emergence.verdicts import load_predictions, registration

TABLE = """from emergence import Prediction
VERSION = {version}
PREDICTIONS = (Prediction("P1", "it", arm="base", family="words", band="middle", style="own",
               test="no classifier", alpha={alpha}),)
"""
LATER = datetime.now(UTC) + timedelta(days=1)
EARLIER = datetime(2001, 1, 1, tzinfo=UTC)


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def write(folder, version=1, alpha=0.01):
    (folder / "predictions.py").write_text(TABLE.format(version=version, alpha=alpha))
    return load_predictions(folder / "predictions.py")


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "the table")
    return tmp_path


def known(folder, began=LATER):
    return registration.registered(folder, load_predictions(folder / "predictions.py"), "abc", began)


def test_a_table_that_was_committed_before_training_is_as_it_was_registered(repository):
    found = known(repository)
    assert (found.before, found.dirty, found.deviated, found.git) == (True, False, "", "")
    assert found.commit == found.head
    assert len(found.judging) == 16


def test_a_table_that_was_committed_after_training_began_deviates(repository):
    found = known(repository, EARLIER)
    assert found.before is False
    assert found.deviated == f"predictions.py was changed after training began (commit {found.commit[:12]})"


def test_a_table_that_is_not_committed_as_it_is_deviates(repository):
    write(repository, 2, 0.02)
    found = known(repository)
    assert (found.dirty, found.deviated) == (True, "predictions.py is not committed as it is")


def test_another_file_that_is_not_committed_is_told_and_is_no_deviation(repository):
    (repository / "notes.txt").write_text("x")
    found = known(repository)
    assert (found.dirty, found.deviated) == (True, "")


def test_without_git_nothing_is_claimed(tmp_path):
    write(tmp_path)
    found = known(tmp_path)
    assert (found.git, found.before, found.deviated) == ("no git", None, "")
    assert found.predictions == load_predictions(tmp_path / "predictions.py").hash


def test_the_judging_code_is_hashed_by_its_source():
    assert files.source_hash(registration.JUDGING) == files.source_hash(registration.JUDGING)
    assert registration.JUDGING == ("verdicts", "analysis")


def _versions(folder, name):
    """(version, hash) of every committed state of a table, as far as this code can still read it."""
    log = subprocess.run(
        ["git", "-C", str(HYPOTHESES), "log", "--format=%H", "--", f"{name}/predictions.py"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for commit in log.stdout.split():
        text = subprocess.run(
            ["git", "-C", str(HYPOTHESES), "show", f"{commit}:./{name}/predictions.py"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        path = folder / f"{commit}.py"
        path.write_text(text)
        try:
            table = load_predictions(path)
        except Exception:  # an older state may name fields that are gone
            continue
        yield table.version, table.hash


@pytest.mark.parametrize("name", ["classifier_emergence", "parity"])
def test_the_version_changed_with_every_row(tmp_path, name):
    """The table as it is differs from every committed one of another version, and equals those of its own."""
    now = load_predictions(HYPOTHESES / name / "predictions.py")
    committed = list(_versions(tmp_path, name))
    if not committed:
        pytest.skip("no git history")
    assert now.version >= max(version for version, _ in committed)
    assert all(hash_ != now.hash for version, hash_ in committed if version < now.version)
