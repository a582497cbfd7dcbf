"""Cost grows linearly in prompts and steps, memory stays flat, and a warm run trains nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from benchmarks.instruments import opened, prompts

from emergence import experiment
from emergence.config import loading as config
from emergence.store.store import Store
from emergence.verdicts import judging as verdicts

ONCE = 64

CLAIM = verdicts.Prediction(
    "P", "an answer classifier emerges", "sft", "answer", "intermediate", "symbolic", "classifier"
)


def test_time_is_linear_in_prompts_and_memory_is_flat(
    benchmark: Any, model_folder: Path, tokenizer: Any
) -> None:
    seconds, peaks = {}, {}

    def measure() -> None:
        for times in (1, 4, 16):
            with opened([("emergence", sys.executable)], model_folder) as (ours,):
                job = {"prompts": prompts(tokenizer, ONCE * times)}
                peaks[times] = ours(job)["peak_mb"]
                seconds[times] = min(ours(job)["seconds"] for _ in range(3 if times < 16 else 2))

    benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info |= {"seconds": seconds, "peak_mb": peaks}
    assert seconds[16] < 1.6 * 16 * seconds[1]
    assert peaks[16] < 1.5 * peaks[1] + 16


@pytest.mark.parametrize("steps", [10, 40, 160])
def test_a_cold_run_by_steps(benchmark: Any, tmp_path: Path, steps: int) -> None:
    settings = written(tmp_path, steps)
    stores = iter(range(1000))

    def cold() -> None:
        experiment.run(settings, (CLAIM,), Store(tmp_path / f"store{next(stores)}"))

    benchmark.pedantic(cold, rounds=3, warmup_rounds=1)


def test_a_warm_run(benchmark: Any, tmp_path: Path) -> None:
    settings, store = written(tmp_path, 160), Store(tmp_path / "store")
    experiment.run(settings, (CLAIM,), store)
    benchmark.pedantic(lambda: experiment.run(settings, (CLAIM,), store), rounds=3)


def written(folder: Path, steps: int) -> config.Config:
    return config.load(tiny.write_config(folder, tiny.write_model(folder / "model"), (0, steps)))
