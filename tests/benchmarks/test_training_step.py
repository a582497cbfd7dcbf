"""One LoRA update on the embedded model: rank 16 on q, k, v, o of all blocks, 11 tokens a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks import worker
from benchmarks.instruments import rows


@pytest.mark.parametrize("batch", [4, 16, 64])
def test_by_batch(benchmark: Any, model_folder: Path, tokenizer: Any, batch: int) -> None:
    work, job = worker.emergence_step(str(model_folder)), rows(tokenizer, batch)
    benchmark.pedantic(work, (job,), rounds=5, warmup_rounds=2)
    benchmark.extra_info["tokens_per_s"] = batch * 11 / benchmark.stats.stats.median
