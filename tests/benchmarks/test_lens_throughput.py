"""Lens throughput on the embedded model, by prompts, layers, vocabulary and top-k."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from benchmarks.instruments import prompts

from emergence import LogitLens


def measure(benchmark: Any, lens: LogitLens, ids: list[list[int]], n_layers: int, **settings: Any) -> None:
    benchmark.pedantic(lens.read, (ids,), {"layers": range(n_layers), **settings}, rounds=5, warmup_rounds=1)
    per_second = len(ids) / benchmark.stats.stats.median
    benchmark.extra_info |= {"prompts_per_s": per_second, "layer_readings_per_s": per_second * n_layers}


@pytest.mark.parametrize("n", [4, 16, 64])
def test_by_prompts(benchmark: Any, lens: LogitLens, tokenizer: Any, n: int) -> None:
    measure(benchmark, lens, prompts(tokenizer, n), lens.n_layers)


@pytest.mark.parametrize("n_layers", [1, 10, 30])
def test_by_layers(benchmark: Any, lens: LogitLens, tokenizer: Any, n_layers: int) -> None:
    measure(benchmark, lens, prompts(tokenizer, 16), n_layers)


@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_by_top_k(benchmark: Any, lens: LogitLens, tokenizer: Any, top_k: int) -> None:
    measure(benchmark, lens, prompts(tokenizer, 16), lens.n_layers, top_k=top_k)


@pytest.mark.parametrize("vocab", [4_096, 16_384, 65_536])
def test_by_vocabulary(benchmark: Any, vocab: int) -> None:
    small = LogitLens(tiny.model(n_layers=8, hidden=256, vocab=vocab))
    ids = [[i, i + 1, i + 2] for i in range(32)]
    measure(benchmark, small, ids, small.n_layers)
