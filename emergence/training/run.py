"""One run as a whole: what the store keeps of one arm and one seed, and how later stages find it again.

In: a lens on a model, an arm, a seed, splits. Out: `data/` (the items), `checkpoints/`, `train.jsonl`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backend import openblas
from ..config.settings import Arm
from ..errors import UsageError
from ..lens.logit_lens import LogitLens
from ..progress import Progress
from ..store.store import Entry
from ..tasks.encoding import rows
from ..tasks.task import Splits, Task, write_jsonl
from . import given
from .checkpoints import CHECKPOINTS, LOG
from .group import ALONE, Group
from .loop import OF_EACH_STEP, Trainer


@dataclass(frozen=True)
class Run:
    """One arm trained with one seed: its entry in the store."""

    arm: str
    seed: int
    entry: Entry

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Map each step to its checkpoint's folder, in the order of the steps."""
        files = (name.split("/") for name in self.entry.manifest["files"])
        names = {parts[1] for parts in files if parts[0] == CHECKPOINTS}
        return {int(name): self.entry.path / CHECKPOINTS / name for name in sorted(names)}

    @property
    def log(self) -> list[dict[str, Any]]:
        """`train.jsonl`: a row per checkpoint with step, losses in nats and held-out accuracies."""
        return [json.loads(line) for line in self.entry.file(LOG).read_text().splitlines()]

    @property
    def by_checkpoint(self) -> list[dict[str, Any]]:
        """`log` without what every update lost."""
        return [{k: v for k, v in row.items() if k not in OF_EACH_STEP} for row in self.log]


def require_shareable(arm: Arm, ranks: int) -> None:
    """Raise `UsageError` unless so many processes can train this arm together."""
    if ranks > 1 and arm.method == "grpo":
        raise UsageError(
            f"{arm.name}: learns by reward, which one process does; leave --launch out, or the arm"
        )
    if ranks > arm.batch_size:
        raise UsageError(
            f"{arm.name}: batch_size={arm.batch_size} cannot be shared out among {ranks} ranks;"
            " raise it, or name fewer hosts"
        )


def build(
    lens: LogitLens, arm: Arm, seed: int, splits: Splits, task: Task, progress: Progress, workdir: Path,
    *, ranks: int = 1, group: Group | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a run into `workdir`, going on from what a killed call left there; return what its manifest says.

    The model is the lens's, and is given back as it was. `ranks` is how many processes are to train it, and
    `group` those that do, each of which calls this. Raises what `Trainer.run` raises, and `UsageError` where
    the two do not match.
    """
    together = group or ALONE
    if arm.method != "given" and together.size != ranks:
        raise UsageError(
            f"{arm.name} seed {seed}: the store holds no run of {ranks} ranks; `emergence run NAME --launch"
            " hosts.json` trains it"
        )
    require_shareable(arm, together.size)
    if group is not None and group.rank == 0:
        group.lead()
    (workdir / "data").mkdir(exist_ok=True)
    for name in ("train", "valid", "test"):
        write_jsonl(workdir / "data" / f"{name}.jsonl", getattr(splits, name))
    learned_from, valid = (rows(lens.tokenizer, part, task.styles) for part in (splits.train, splits.valid))
    if arm.method == "given":
        return given.build(lens, arm, seed, learned_from, valid, workdir, progress)
    trainer = Trainer(
        lens=lens, arm=arm, seed=seed, rows=learned_from, valid=valid, workdir=workdir, progress=progress,
        reward=task.reward, group=together,
    )  # fmt: skip
    blas = openblas.install()
    return trainer.run() | {"blas": blas.name, "threads": blas.threads}
