"""Cost grows linearly in prompts and steps, memory stays flat, and a warm run trains nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from benchmarks.instruments import opened, prompts

from emergence import Prediction
from emergence.experiment import Experiment
from emergence.store import Store
from emergence.verdicts import Table

ONCE = 64

CLAIM = Prediction(
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
        assert experiment(settings, tmp_path / f"store{next(stores)}").report()

    benchmark.pedantic(cold, rounds=3, warmup_rounds=1)


def test_a_warm_run(benchmark: Any, tmp_path: Path) -> None:
    folder, store = written(tmp_path, 160), tmp_path / "store"
    assert experiment(folder, store).report()
    benchmark.pedantic(lambda: experiment(folder, store).report(), rounds=3)


def experiment(folder: Path, store: Path) -> Experiment:
    """One to judge one claim with, no stage of which has been computed."""
    made = Experiment(folder, store=Store(store))
    made.predictions = Table((CLAIM,))
    return made


def written(folder: Path, steps: int) -> Path:
    """The folder of an experiment on a tiny model."""
    tiny.write_config(folder, tiny.write_model(folder / "model"), (0, steps))
    return folder
