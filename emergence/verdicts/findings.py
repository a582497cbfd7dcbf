"""Findings: verdicts of a model, written down and expected from then on, refutations included.

In: verdicts, and an explicit wish to record them. Out: `findings.json` beside the experiment, from which
`report.findings_page` makes `FINDINGS.md`. A falsified prediction that is written down is expected: its test
is xfail(strict), so that the day it changes, the suite turns red. A record belongs to one model, its weights,
one config and one version of the predictions: it is expected of nothing else, and nothing else replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import loading
from ..config.settings import Config, shown_model
from ..errors import UsageError
from ..store.files import write_atomic
from .predictions import Table
from .registration import Registration
from .verdict import Verdict

FILE = "findings.json"
SCHEMA = 2
_RECORDED = (
    "outcome", "reason", "statistic", "estimate", "low", "high", "threshold", "baseline", "p", "p_adjusted",
    "layer", "step", "onset", "n_prompts", "n_seeds", "claim", "arm", "style", "family", "band",
    "stands", "depends", "deviated",
)  # fmt: skip
_DIGITS = 6


def load(folder: Path) -> dict[str, Any]:
    """The content of an experiment's `findings.json`; without the file, no models.

    Raises
    ------
    UsageError
        The file is no findings file, or of another schema.
    """
    path = folder / FILE
    if not path.exists():
        return {"schema": SCHEMA, "models": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}); restore it, or remove it and record again") from None
    known = isinstance(content, dict) and content.get("schema") == SCHEMA
    if not known or not isinstance(content.get("models"), dict):
        raise UsageError(f"{path}: not a findings file of schema {SCHEMA}; remove it and record again")
    return dict(content)


def same_version(folder: Path, table: Table) -> None:
    """Refuse predictions that have changed since they were recorded.

    Raises
    ------
    UsageError
        Their version has not changed with them.
    """
    for name, entry in load(folder)["models"].items():
        if entry["predictions_version"] == table.version and entry["predictions_hash"] != table.hash:
            raise UsageError(
                f"{folder / 'predictions.py'}: the predictions have changed since version {table.version} "
                f"was recorded for {name}; raise VERSION, say why in the commit, and record again"
            )


def recordable(folder: Path, config: Config, weights: str | None = None) -> None:
    """Refuse, before anything is trained, what `record` would refuse; `weights` may not be known yet.

    Raises
    ------
    UsageError
        What is on record was measured with other settings or weights: they, and what to do, in one line.
    """
    models, name = load(folder)["models"], shown_model(config.model)
    if name in models and (others := _differences(folder, models[name], config, weights)):
        raise UsageError(
            f"{folder / FILE}: {name} is on record with {_listed(others)}; "
            f"run with what is on record, or remove {name} from the file to record it anew"
        )


def record(
    folder: Path,
    config: Config,
    weights: str,
    table: Table,
    verdicts: Sequence[Verdict],
    registration: Registration | None = None,
) -> dict[str, Any]:
    """Write the verdicts of this model into findings.json, where other models' stay; returns its content.

    `weights` is the hash of the model that was measured (`models.Source.hash`).

    Raises
    ------
    UsageError
        As `same_version` and `recordable`.
    """
    same_version(folder, table)
    recordable(folder, config, weights)
    content = load(folder)
    content["models"][shown_model(config.model)] = {
        "weights": weights,
        "config": config.hash,
        "predictions_version": table.version,
        "predictions_hash": table.hash,
        "registration": registration.as_dict() if registration else None,
        "findings": {f"{v.prediction}[{v.cls}]": _recorded(v) for v in verdicts},
    }
    content["models"] = dict(sorted(content["models"].items()))
    write_atomic(folder / FILE, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return content


def falsified(folder: Path, config: Config, weights: str, table: Table) -> dict[tuple[str, str], str]:
    """(prediction, class) to the reason, for what is written down as falsified and hence expected.

    Nothing is expected of other weights, under another config, or of predictions with another version.

    Raises
    ------
    UsageError
        The predictions have changed since they were recorded, and their version has not.
    """
    entry = load(folder)["models"].get(shown_model(config.model))
    if not entry:
        return {}
    same_version(folder, table)
    of_this = {"weights": weights, "config": config.hash, "predictions_version": table.version}
    if any(entry[k] != v for k, v in of_this.items()):
        return {}
    return {
        claim_and_class(name): f"written down as falsified: {finding['reason']}"
        for name, finding in entry["findings"].items()
        if finding["outcome"] == "falsified"
    }


def claim_and_class(name: str) -> tuple[str, str]:
    """`E1[add]`, as a finding is called, to `("E1", "add")`."""
    prediction, _, cls = name.removesuffix("]").partition("[")
    return prediction, cls


def _differences(folder: Path, entry: Mapping[str, Any], config: Config, weights: str | None) -> list[str]:
    """What a record was measured with and this run is not, as `max_steps 300, not 20`."""
    lines = []
    if weights not in (None, entry["weights"]):
        lines.append(f"weights {entry['weights'][:12]}, not {str(weights)[:12]}")
    if config.hash == entry["config"]:
        return lines
    try:
        written = loading.load(folder / "config.yaml", {"model": config.model})
    except UsageError:
        written = config
    if written.hash != entry["config"]:
        return [*lines, f"config {entry['config']}, not {config.hash}"]
    before, now = _flat(written.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    changed = [k for k in dict.fromkeys([*before, *now]) if before.get(k) != now.get(k)]
    return [*lines, *(f"{k} {before.get(k)}, not {now.get(k)}" for k in changed)]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted path; arms go by their names."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        value = {row["name"]: row for row in value}
    if not isinstance(value, dict):
        return {path: value}
    return {
        k: v for name, inner in value.items() for k, v in _flat(inner, f"{path}.{name}".strip(".")).items()
    }


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more" if len(parts) > 3 else "")


def _recorded(v: Verdict) -> dict[str, Any]:
    return {name: _rounded(getattr(v, name)) for name in _RECORDED} | {"kind": v.details.get("kind")}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
