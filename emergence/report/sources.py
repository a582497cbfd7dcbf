"""Where the numbers came from, as a person reads it. In: the provenance of a report. Out: names and texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: float) -> str:
    """A number of a config as one writes it: `0.0005`, `32`; six significant digits, never an exponent."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")


def duration(seconds: float) -> str:
    """`48 s`, `12 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60} min"
    )


def summary(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The main facts, a line each; what the provenance does not say is left out."""
    model, runs = provenance.get("model") or {}, provenance.get("runs") or {}
    seconds, table = provenance.get("training_seconds"), provenance.get("predictions_version")
    machine = (_device(provenance), provenance.get("machine"), provenance.get("blas"))
    rows = {
        "model": model.get("name"),
        "weights (SHA-256)": model.get("hash"),
        "runs": _runs(runs),
        "training took": None if seconds is None else duration(seconds),
        "claims": table and f"version {table} of the table",
        "config": provenance.get("config_hash"),
        "command": provenance.get("command"),
        "computed on": ", ".join(filter(None, machine)),
        "versions": ", ".join(f"{name} {v}" for name, v in (provenance.get("versions") or {}).items()),
    }
    return [(name, str(text)) for name, text in rows.items() if text]


def _runs(names: Mapping[str, str]) -> str:
    """`sft seed 0` and its like to `sft, seeds 0, 1, 2; shuffled, seed 0`."""
    arms: dict[str, list[str]] = {}
    for name in names:
        arm, _, seed = name.rpartition(" seed ")
        arms.setdefault(arm, []).append(seed)
    return "; ".join(f"{arm}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" for arm, seeds in arms.items())


def _device(provenance: Mapping[str, Any]) -> str:
    """`CPU`, from MLX's `Device(cpu, 0)`."""
    told = str(provenance.get("device") or "")
    found = re.fullmatch(r"Device\((\w+), 0\)", told)
    return found[1].upper() if found else told
