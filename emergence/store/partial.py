"""Folders under construction in a store that hosts share, under `store`: one for each builder.

In: the path of an entry. Out: a folder that nobody else writes in, with what an earlier builder left.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from . import files
from .inventory import PARTIAL


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())[:60]


def _mine(path: Path) -> Path:
    return path.with_name(f"{path.name}{PARTIAL}-{_host()}-{os.getpid()}")


def _left(path: Path) -> list[Path]:
    """Every folder in which this entry is or was built, the one that was written to last first."""
    found = [(_changed(left), left) for left in path.parent.glob(f"{path.name}{PARTIAL}*") if left.is_dir()]
    return [left for _, left in sorted(found, reverse=True)]


def _changed(folder: Path) -> float:
    latest = 0.0
    for place, _, _ in os.walk(folder):
        with suppress(FileNotFoundError):
            latest = max(latest, os.stat(place).st_mtime)
    return latest


def _is_dead(folder: Path) -> bool:
    """Whether the builder is known to be gone: it ran on this host, and its process is not there."""
    host, _, process = folder.name.partition(f"{PARTIAL}-")[2].rpartition("-")
    if host != _host() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def take(path: Path) -> Path:
    """Return this process's folder for `path`, with what was reached in the newest of the others.

    A folder whose builder is known to be dead becomes ours; another is copied, since its builder may only
    have been silent. A copy may be torn, as what a kill leaves may be: a build goes on from neither unawares.
    """
    mine, left = _mine(path), _left(path)
    with files.explained(mine):
        if mine in left or not left:
            return mine
        if _is_dead(left[0]):
            with suppress(FileNotFoundError):
                os.rename(left[0], mine)
            return mine
        aside = mine.with_name(f"{files.TEMPORARY}{mine.name}")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            shutil.copytree(left[0], aside, ignore=shutil.ignore_patterns(f"{files.TEMPORARY}*"))
            os.rename(aside, mine)
        except (shutil.Error, FileNotFoundError):  # it was finished or removed meanwhile
            shutil.rmtree(aside, ignore_errors=True)
        return mine


def clear(path: Path) -> None:
    """The entry is there: remove what is left of it. A builder that is still at work then takes the entry."""
    for left in _left(path):
        with suppress(OSError):
            files.remove_tree(left)
