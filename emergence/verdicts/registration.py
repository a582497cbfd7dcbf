"""Was the table frozen before anything was trained: what git knows, kept with every verdict.

In: an experiment's folder, its table, when training began. Out: a `Registration`. It hashes the predictions,
the code that judges (`verdicts` and `analysis`) and the settings, and names the commit that last changed the
table. A table that was changed after training began is a deviation, and says so wherever a verdict is shown.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..store.files import source_hash
from .predictions import Table
from .verdict import Verdict

FILE = "predictions.py"
JUDGING = ("verdicts", "analysis")
"""Packages whose source decides what a reading means."""


@dataclass(frozen=True)
class Registration:
    """What a verdict was judged by, and since when that has been fixed."""

    predictions: str
    version: int
    judging: str
    """Hash of the source of `JUDGING`."""
    settings: str
    git: str
    """Empty, or why there is nothing from git: `no git`."""
    commit: str = ""
    """The last one that changed predictions.py, and when."""
    committed: str = ""
    head: str = ""
    dirty: bool = False
    """Something in the repository was not committed."""
    began: str = ""
    """When the first run began to train."""
    before: bool | None = None
    """That commit is an ancestor of HEAD, and was made before training began; None where git cannot tell."""
    deviated: str = ""
    """How the table departs from one that was fixed beforehand; empty where it does not."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def registered(folder: Path, table: Table, settings: str, began: datetime | None = None) -> Registration:
    """What is known of the table of `folder`; `settings` is the config's hash, `began` when training did."""
    known = Registration(table.hash, table.version, source_hash(JUDGING), settings, git="")
    if began is not None:
        known = dataclasses.replace(known, began=began.isoformat(timespec="seconds"))
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return dataclasses.replace(known, git="no git")
    known = dataclasses.replace(known, head=head, dirty=bool(_git(folder, "status", "--porcelain")))
    last = (_git(folder, "log", "-1", "--format=%H %cI", "--", FILE) or "").split()
    if not last or _git(folder, "status", "--porcelain", "--", FILE):
        commit, committed = last or ("", "")
        return dataclasses.replace(
            known,
            commit=commit,
            committed=committed,
            before=False,
            deviated=f"{FILE} is not committed as it is",
        )
    commit, committed = last
    ancestor = _git(folder, "merge-base", "--is-ancestor", commit, head) is not None
    early = began is None or datetime.fromisoformat(committed) <= began
    why = "" if ancestor and early else f"{FILE} was changed after training began (commit {commit[:12]})"
    return dataclasses.replace(
        known, commit=commit, committed=committed, before=None if began is None else not why, deviated=why
    )


def mark(verdicts: Sequence[Verdict], registration: Registration) -> list[Verdict]:
    """The verdicts, each with how the table departs from one that was fixed beforehand."""
    return [dataclasses.replace(v, deviated=registration.deviated) for v in verdicts]


def committed(path: Path) -> tuple[str, str] | None:
    """The last commit that changed a file, and its time; None where it is not committed as it is now."""
    last = (_git(path.parent, "log", "-1", "--format=%H %cI", "--", path.name) or "").split()
    if len(last) != 2 or _git(path.parent, "status", "--porcelain", "--", path.name) != "":
        return None
    return last[0], last[1]


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says in `folder`; None where it fails, or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
