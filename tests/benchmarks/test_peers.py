"""Ours and the peers in turn: same weights, same prompts, same machine, ratio of medians.

`EMERGENCE_PEERS` is a Python with `requirements/peers.txt` installed; without it these are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.instruments import alternate, opened, prompts, rows

PEERS = os.environ.get("EMERGENCE_PEERS", "")
ROUNDS = int(os.environ.get("EMERGENCE_ROUNDS", "7"))
LENSES = ("transformers", "streamed", "nnsight", "transformer_lens")

pytestmark = pytest.mark.skipif(
    not PEERS and not importlib.util.find_spec("torch"),
    reason="EMERGENCE_PEERS names no Python with requirements/peers.txt",
)


def ratios(benchmark: Any, found: dict[str, dict[str, Any]], ours: str) -> dict[str, float]:
    """Each peer's median over ours, round by round: above 1, ours is faster."""
    mine = np.array(found[ours]["seconds"])
    pairs = {n: float(np.median(np.array(f["seconds"]) / mine)) for n, f in found.items() if n != ours}
    benchmark.extra_info |= {
        "median_s": {n: f["median"] for n, f in found.items()},
        "peak_mb": {n: f["peak_mb"] for n, f in found.items()},
        "ours_is_faster_by": pairs,
    }
    return pairs


def test_lens(benchmark: Any, model_folder: Path, tokenizer: Any) -> None:
    places = [("emergence", sys.executable), *((name, PEERS or sys.executable) for name in LENSES)]
    job = {"prompts": prompts(tokenizer, 64)}
    with opened(places, model_folder) as instruments:
        found = benchmark.pedantic(alternate, (instruments, job, ROUNDS), rounds=1)
        benchmark.extra_info["peer_versions"] = instruments[-1].versions
    pairs = ratios(benchmark, found, "emergence")
    ours = np.array(found["emergence"]["outcome"])
    for name in LENSES:  # near-ties may swap in float32; the same weights and prompts may not differ more
        assert (np.array(found[name]["outcome"]) == ours).mean() > 0.995, name
    assert found["emergence"]["peak_mb"] <= found["transformers"]["peak_mb"] / 4
    assert min(pairs.values()) >= 1.2, pairs


def test_lora_step(benchmark: Any, model_folder: Path, tokenizer: Any) -> None:
    places = [("emergence_step", sys.executable), ("peft", PEERS or sys.executable)]
    with opened(places, model_folder) as instruments:
        found = benchmark.pedantic(alternate, (instruments, rows(tokenizer), ROUNDS), rounds=1)
    pairs = ratios(benchmark, found, "emergence_step")
    assert found["peft"]["outcome"] == pytest.approx(found["emergence_step"]["outcome"], rel=1e-4)
    assert pairs["peft"] >= 1.0, pairs
