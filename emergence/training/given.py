"""Stage training, where others have trained: a series of checkpoints becomes a run like any other.

In: a lens on the base model, the folder of a series, held-out rows. Out: what a training leaves,
`checkpoints/` and `train.jsonl`, each checkpoint proven to fit and scored on the rows. Nothing is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..config.settings import Arm
from ..errors import BrokenExperiment
from ..lens.logit_lens import LogitLens
from ..models.adapters import adapted
from ..models.series import write
from ..progress import Progress
from ..store import series
from ..store.files import write_atomic
from ..store.series import Saved
from ..tasks.encoding import Row
from . import learned, objectives
from .checkpoints import CHECKPOINTS, LOG


def build(
    lens: LogitLens,
    arm: Arm,
    seed: int,
    rows: Sequence[Row],
    valid: Sequence[Row],
    workdir: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Write a series into `workdir` as a training would have left it; return what its manifest says.

    Raises
    ------
    BrokenExperiment
        A checkpoint does not fit the model, or changes nothing, or its first step 0 is not the base model.
    """
    found = series.find(Path(arm.series(seed)))
    log: list[dict[str, Any]] = []
    saved: list[Saved | None] = [*found] if found[0].step == 0 else [None, *found]
    with progress.task(f"take {arm.name} seed {seed}", len(saved), "checkpoint") as task:
        for one in saved:
            step = one.step if one else 0
            place = workdir / CHECKPOINTS / f"{step:07d}"
            write(lens.model, one, step, found[0], place)
            log.append({"step": step, "train_loss": None, **_score(lens, place, valid)})
            task.advance(1, f"step {step}")
    write_atomic(workdir / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in log))
    result = {"steps": log[-1]["step"], "seconds": 0.0, "parameters": _size(workdir, log), "final": log[-1]}
    return result | learned.learned(log[-1]["valid_accuracy"], rows, valid)


def _score(lens: LogitLens, checkpoint: Path, valid: Sequence[Row]) -> dict[str, object]:
    with adapted(lens.model, checkpoint):
        score = objectives.score_rows(objectives.Objective(lens), valid)
    if not math.isfinite(score.loss):
        raise BrokenExperiment(f"{checkpoint}: validation loss {score.loss}; its training diverged")
    return score.summary()


def _size(workdir: Path, log: Sequence[dict[str, Any]]) -> int:
    last: Any = mx.load(str(workdir / CHECKPOINTS / f"{log[-1]['step']:07d}" / "adapters.safetensors"))
    return sum(int(t.size) for t in last.values())
