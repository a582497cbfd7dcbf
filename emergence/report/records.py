"""Where the results of an experiment lie, and what `emergence run` writes down of each call. Loads no array.

    experiments/<name>/latest                              names the newest of the folders below
    experiments/<name>/<config hash>-<model hash>/         results of one config on one model
    experiments/<name>/results/run_*.json                  one a call of `emergence run`

The keys of a record are those of `lazarus experiment`, so that its readers can read ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..store.files import explained, write_atomic

VERDICTS, LATEST = "verdicts.json", "latest"
_HEX = 12
"""Digits of each hash in a folder's name, as many as a config's hash has."""
_PLACE = re.compile(rf"[0-9a-f]{{{_HEX}}}-[0-9a-f]{{{_HEX}}}")


# Places of results


def place(root: Path, name: str, config_hash: str, model_hash: str) -> Path:
    """The folder for the results of experiment `name` with this config on this model; makes nothing.

    `root` is the store's. Two models, or two configs, of one experiment have two folders: the results of one
    never replace those of the other.
    """
    return root / "experiments" / name / f"{config_hash[:_HEX]}-{model_hash[:_HEX]}"


def known(root: Path, name: str) -> list[Path]:
    """Every folder of experiment `name` that holds verdicts, the one judged last at the end."""
    return _judged(root / "experiments" / name)


def latest(root: Path, name: str) -> Path | None:
    """The folder of the newest results of experiment `name`, or None where nothing was judged."""
    return newest(root / "experiments" / name)


def newest(experiment: Path) -> Path | None:
    """`latest`, by the experiment's own folder.

    It is the one that the file `latest` names; where that one was removed, the one judged last.
    """
    folders = _judged(experiment)
    with suppress(OSError, UnicodeDecodeError):
        named = experiment / (experiment / LATEST).read_text(encoding="utf-8").strip()
        if named in folders:
            return named
    return folders[-1] if folders else None


def mark_latest(folder: Path) -> None:
    """Let `latest` of the experiment name `folder`, which `place` gave: whole, whoever else does so now."""
    write_atomic(folder.parent / LATEST, f"{folder.name}\n")


def _judged(experiment: Path) -> list[Path]:
    """Folders with verdicts, by when those were written; one that somebody removes meanwhile is none."""
    written: list[tuple[int, Path]] = []
    for path in experiment.glob(f"*/{VERDICTS}"):
        if _PLACE.fullmatch(path.parent.name):
            with suppress(FileNotFoundError):
                written.append((path.stat().st_mtime_ns, path.parent))
    return [folder for _, folder in sorted(written)]


# Records of calls


def plain(value: Any) -> Any:
    """JSON's own types: arrays as lists, NaN and infinity as null, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):  # an array, or a number of one; to name its type would load NumPy
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    return str(value)


def run_record(
    name: str,
    status: str,
    started: datetime,
    finished: datetime,
    run_results: Mapping[str, Any],
    eval_results: Mapping[str, Any],
    config: Mapping[str, Any],
    error: str | None = None,
) -> dict[str, Any]:
    """The content of `results/run_*.json`, with the keys that lazarus' readers know."""
    return {
        "experiment_name": name,
        "status": status,
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": finished.isoformat(timespec="seconds"),
        "duration_seconds": round((finished - started).total_seconds(), 3),
        "run_results": plain(run_results),
        "eval_results": plain(eval_results),
        "config": plain(config),
        "error": error,
    }


def write_record(folder: Path, started: datetime, record: Mapping[str, Any]) -> Path:
    """Keep the record of a call that began at `started` as `run_<date>_<time>.json` in `folder`.

    Each call has a file of its own: of two that began in one microsecond, the second one's name ends in `_2`.

    Raises
    ------
    BrokenExperiment
        The disk is full or failing.
    UsageError
        The folder may not be written.
    """
    with explained(folder):
        path = _claim(folder, f"run_{started:%Y%m%d_%H%M%S_%f}")
    try:
        write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False))
    finally:
        with suppress(OSError):
            if not path.stat().st_size:  # it could not be written: the name is free again
                path.unlink()
    return path


def _claim(folder: Path, stem: str) -> Path:
    """A new empty file: the operating system lets one process alone make it."""
    number = 1
    while True:
        path = folder / (f"{stem}_{number}.json" if number > 1 else f"{stem}.json")
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def run_records(folder: Path) -> list[dict[str, Any]]:
    """Every `results/run_*.json` of an experiment's folder, oldest first; a damaged one is said to be so."""
    records = []
    for path in sorted((folder / "results").glob("run_*.json")):
        try:
            text = path.read_text(encoding="utf-8")
            record = dict(json.loads(text)) if text else None
        except FileNotFoundError:  # somebody else removes it
            continue
        except (ValueError, TypeError):
            record = {"status": "damaged", "error": f"{path.name} is not a JSON object"}
        if record is not None:  # an empty one is a name that its process has taken, and not written to yet
            records.append(record | {"file": path.name})
    return records
