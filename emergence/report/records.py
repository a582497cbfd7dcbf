"""What `emergence run` writes down of a run, and reads back: `results/run_*.json`. Loads no array.

The keys are those of `lazarus experiment`, so that its readers can read ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

VERDICTS = "verdicts.json"


def plain(value: Any) -> Any:
    """JSON's own types: arrays as lists, NaN and infinity as null, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
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


def run_records(folder: Path) -> list[dict[str, Any]]:
    """Every `results/run_*.json` of an experiment's folder, oldest first; a damaged one is said to be so."""
    records = []
    for path in sorted((folder / "results").glob("run_*.json")):
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:  # somebody else removes it
            continue
        except (ValueError, TypeError):
            record = {"status": "damaged", "error": f"{path.name} is not a JSON object"}
        records.append(record | {"file": path.name})
    return records
