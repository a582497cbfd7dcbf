"""Models × predictions, from results that are there: `experiments/<name>/*/verdicts.json`.

In: a store, an experiment's name. Out: a `Matrix`, and its files. Nothing is trained, read or judged: every
number is one of a `verdicts.json`, but for the means over models. Only results of one version of the
predictions stand side by side, the newest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import EmergenceError, UsageError
from ..report import read_verdicts, records
from ..store.files import write_atomic
from ..verdicts import Verdict
from . import manifest as manifests
from .pooling import FEWEST, Pooled, pooled, variance

SCHEMA = 1
FOLDER, JSON, PARQUET = "matrix", "matrix.json", "matrix.parquet"
_APART = ("name", "description", "model", "notices", "vocabulary", "test_prompts")
"""What no setting is: names, texts, and what `model` says already."""
Column = tuple[str, str]
"""Prediction and class."""


@dataclass(frozen=True)
class Row:
    """The results of one model with one config."""

    model: str
    settings: str
    """Where it differs from the other rows: `lora.rank=4`; empty where all rows have the same."""
    place: str
    """Its folder: `<config hash>-<model hash>`."""
    layers: int | None
    """Blocks of the model; None where `report.json` is not there any more."""
    began: str
    """When its first run began to train."""
    verdicts: Mapping[Column, Verdict]

    def depth(self, verdict: Verdict) -> float | None:
        """`(layer + 1) / layers` of a verdict."""
        if verdict.layer is None or self.layers is None:
            return None
        return float((verdict.layer + 1) / self.layers)


@dataclass(frozen=True)
class Line:
    """One prediction over all models that have one setting."""

    prediction: str
    cls: str
    settings: str
    claim: str
    supported: int
    n: int
    """Models with a verdict, whatever it is."""
    mean: Pooled | None
    statistic: str
    """Of the mean; empty where the models were decided by different ones."""


@dataclass(frozen=True)
class Matrix:
    """All that is told of an experiment over models."""

    experiment: str
    version: int
    columns: tuple[Column, ...]
    claims: Mapping[str, str]
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    registered: str
    """`sweep file committed ..., before the first run`; empty where the matrix is exploratory."""
    left_out: tuple[str, ...]
    """Results that are not in it, with the reason."""

    @property
    def standing(self) -> str:
        """Whether the choice of models and settings was fixed before anything was trained."""
        if self.registered:
            return f"registered across models: {self.registered}"
        return "exploratory across models: no committed sweep file names these models before their first run"

    def stable(self, model: str) -> tuple[int, int] | None:
        """Columns that all rows of a model have: in how many the outcome is the same, of how many."""
        rows = [row.verdicts for row in self.rows if row.model == model]
        if len(rows) < 2:
            return None
        judged = [c for c in self.columns if all(c in row for row in rows)]
        same = [len({row[c].outcome for row in rows}) == 1 for c in judged]
        return sum(same), len(same)


def collect(root: Path, experiment: str) -> Matrix:
    """The matrix of an experiment in a store, by the store's root.

    Raises
    ------
    UsageError
        There are no results.
    """
    found, left_out = _results(records.known(root, experiment))
    if not found:
        raise UsageError(f"{experiment}: no results yet in {root}; `emergence sweep` or `run` makes some")
    newest = max(info["predictions_version"] for _, info, _ in found)
    for folder, info, _ in found:
        if (version := info["predictions_version"]) != newest:
            left_out.append(f"{folder.name}: of version {version} of the predictions, not {newest}")
    kept = [one for one in found if one[1]["predictions_version"] == newest]
    labels = differences([info["provenance"]["config"] for _, info, _ in kept])
    rows = [_row(*one, label) for one, label in zip(kept, labels, strict=True)]
    rows.sort(key=lambda row: (row.model, _natural(row.settings)))
    columns = tuple(dict.fromkeys(column for row in rows for column in row.verdicts))
    claims = {v.prediction: v.claim for row in rows for v in row.verdicts.values()}
    return Matrix(
        experiment, newest, columns, claims, tuple(rows), tuple(_lines(columns, claims, rows)),
        _registered(root, experiment, rows), tuple(left_out),
    )  # fmt: skip


_Result = tuple[Path, dict[str, Any], list[Verdict]]


def _results(folders: Iterable[Path]) -> tuple[list[_Result], list[str]]:
    found, damaged = [], []
    for folder in folders:
        try:
            found.append((folder, *read_verdicts(folder)))
        except EmergenceError as error:
            damaged.append(f"{folder.name}: {error}")
    return found, damaged


def _row(folder: Path, info: Mapping[str, Any], verdicts: Sequence[Verdict], settings: str) -> Row:
    layers = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        layers = int(json.loads((folder / "report.json").read_text(encoding="utf-8"))["layers"])
    began = (info["provenance"].get("registration") or {}).get("began", "")
    by_column = {(v.prediction, v.cls): v for v in verdicts}
    return Row(info["model"], settings, folder.name, layers, began, by_column)


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What sets each config apart: `lora.rank=4`, or `sft.lora.rank=4` where arms differ in it."""
    flat = [_flat(config) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    differing = [name for name in names if len({json.dumps(one.get(name)) for one in flat}) > 1]
    told = []
    for one in flat:
        shown: dict[str, Any] = {}
        for name in differing:
            arm, _, rest = name.removeprefix("arms.").partition(".")
            of_all = [n for n in names if n.startswith("arms.") and n.endswith(f".{rest}") and rest]
            shared = name.startswith("arms.") and len({json.dumps(one.get(n)) for n in of_all}) == 1
            shown[rest if shared else f"{arm}.{rest}" if rest else name] = one.get(name)
        told.append(" ".join(f"{k}={_short(v)}" for k, v in shown.items() if v is not None))
    return told


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, arms by theirs; lists are values."""
    plain = {k: v for k, v in config.items() if k not in _APART}
    plain["arms"] = {
        arm["name"]: {k: v for k, v in arm.items() if k != "name"} for arm in plain.get("arms", ())
    }

    def walk(value: Any, name: str) -> Iterable[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from walk(inner, f"{name}.{key}" if name else key)
        else:
            yield name, value

    return dict(walk(plain, ""))


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts rank=4 before rank=16."""
    parts = []
    for word in text.replace("=", " ").split():
        try:
            parts.append((0, float(word), ""))
        except ValueError:
            parts.append((1, 0.0, word))
    return parts


def _lines(columns: Sequence[Column], claims: Mapping[str, str], rows: Sequence[Row]) -> Iterable[Line]:
    """A line a prediction and class, for each setting that the rows have."""
    for prediction, cls in columns:
        for settings in dict.fromkeys(row.settings for row in rows):
            found = [
                row.verdicts[prediction, cls]
                for row in rows
                if row.settings == settings and (prediction, cls) in row.verdicts
            ]
            if found:
                mean, statistic = _mean(found)
                supported = sum(v.outcome == "supported" for v in found)
                yield Line(
                    prediction, cls, settings, claims[prediction], supported, len(found), mean, statistic
                )


def _mean(verdicts: Sequence[Verdict]) -> tuple[Pooled | None, str]:
    """The mean over models, where there are enough and all were decided by one statistic."""
    statistics = {v.statistic for v in verdicts}
    whole = [v for v in verdicts if None not in (v.estimate, v.low, v.high) and v.high > v.low]
    if len(statistics) > 1 or len(whole) < FEWEST or len(whole) < len(verdicts):
        return None, statistics.pop() if len(statistics) == 1 else ""
    made = pooled([v.estimate for v in whole], [variance(v.low, v.high) for v in whole])
    return made, statistics.pop()


def _registered(root: Path, experiment: str, rows: Sequence[Row]) -> str:
    """The commit of the sweep file that named every row before it was trained; empty where there is none."""
    covered: dict[str, tuple[str, str]] = {}
    for sweep in manifests.every(root, experiment):
        if sweep.committed:
            places = (Path(unit.verdicts).parent.name for unit in sweep.units if unit.verdicts)
            covered |= dict.fromkeys(places, sweep.committed)
    used = set()
    for row in rows:
        commit, when = covered.get(row.place, ("", ""))
        if not commit or not row.began or datetime.fromisoformat(when) > datetime.fromisoformat(row.began):
            return ""
        used.add((commit, when))
    return "; ".join(
        f"sweep file committed {when} ({commit[:12]}), before the first run" for commit, when in used
    )


def document(matrix: Matrix) -> dict[str, Any]:
    """The content of `matrix.json`."""
    return {
        "schema": SCHEMA,
        "experiment": matrix.experiment,
        "predictions_version": matrix.version,
        "standing": matrix.standing,
        "exploratory": not matrix.registered,
        "claims": dict(matrix.claims),
        "rows": [
            {
                "model": row.model,
                "settings": row.settings,
                "results": row.place,
                "verdicts": [_told(row, v) for v in row.verdicts.values()],
            }
            for row in matrix.rows
        ],
        "over_models": [records.plain(_line(line)) for line in matrix.lines],
        "left_out": list(matrix.left_out),
    }


_KEPT = (
    "outcome",
    "estimate",
    "low",
    "high",
    "threshold",
    "statistic",
    "arm",
    "layer",
    "step",
    "n_seeds",
    "reason",
)


def _told(row: Row, verdict: Verdict) -> dict[str, Any]:
    named = {"prediction": verdict.prediction, "class": verdict.cls}
    return named | {name: getattr(verdict, name) for name in _KEPT} | {"depth": row.depth(verdict)}


def _line(line: Line) -> dict[str, Any]:
    told = dataclasses.asdict(line)
    return {"class" if name == "cls" else name: value for name, value in told.items()}


def write(matrix: Matrix, folder: Path) -> list[Path]:
    """`matrix.json` and `matrix.parquet` (a row a model, setting, prediction and class) in `folder`."""
    import pandas as pd

    content = document(matrix)
    table = pd.DataFrame(
        [
            {"model": row["model"], "settings": row["settings"], "results": row["results"]} | verdict
            for row in content["rows"]
            for verdict in row["verdicts"]
        ]
    )
    whole = {name: "Int64" for name in ("layer", "step", "n_seeds")}
    real = {name: "float64" for name in ("estimate", "low", "high", "threshold", "depth")}
    table = table.astype(whole | real)
    write_atomic(folder / JSON, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    write_atomic(folder / PARQUET, lambda path: table.to_parquet(path, compression="zstd", index=False))
    return [folder / JSON, folder / PARQUET]
