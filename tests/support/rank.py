"""One rank of a small training, for `mlx.launch`: what each of them writes, scores and refuses.

`python rank.py MODEL FOLDER` trains into FOLDER/run and writes FOLDER/rank<N>.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import tiny_training

from emergence.config.settings import LoRA
from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.models import loading as models
from emergence.training.group import ALONE, Alone, Group
from emergence.training.loop import Trainer

ARMS = [
    tiny_training.arm(max_steps=20, checkpoint_steps=(0, 20)),
    tiny_training.arm("classified", max_steps=20, checkpoint_steps=(0, 20), classifier_layer_pct=0.5),
]


def trained(model: str, into: Path, group: Alone = ALONE) -> list[list[dict[str, object]]]:
    """The logs of both arms, trained into `into`."""
    lens = LogitLens(*mlx_lm.load(model))
    rows, valid = (tiny_training.rows(lens.tokenizer, n, seed) for n, seed in ((20, 0), (6, 1)))
    logs = []
    for arm in ARMS:
        place = into / arm.name
        Trainer(lens=lens, arm=arm, seed=3, rows=rows, valid=valid, workdir=place, group=group).run()
        logs.append(tiny_training.log(place) if (place / "train.jsonl").exists() else [])
    return logs


def refused(group: Group, model: str) -> list[str]:
    """What is said where ranks differ in what they are to train, and in one weight."""
    said = []
    net, _ = mlx_lm.load(model)
    with models.lora(net, "lora", LoRA(rank=4, alpha=8.0), 3):
        group.agree("their weights", net)
        if group.rank == 1:
            weight = net.layers[0].self_attn.q_proj.lora_a
            weight[0, 0] += mx.array(2.0**-20)
        for ask in (
            lambda: group.agree("their weights", net),
            lambda: group.agree_on("a key", str(group.rank)),
        ):
            try:
                ask()
            except UsageError as error:
                said.append(str(error))
    return said


def main(model: str, folder: str) -> None:
    group, place = Group(), Path(folder)
    mine = place / ("run" if group.rank == 0 else f"rank{group.rank}")
    report = {"refused": refused(group, model), "same": group.same({"rank": group.rank})}
    report |= {"size": group.size, "logs": trained(model, mine, group)}
    report["files"] = sorted(p.relative_to(mine).as_posix() for p in mine.rglob("*") if p.is_file())
    (place / f"rank{group.rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
