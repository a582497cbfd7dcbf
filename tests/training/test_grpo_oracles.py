"""Our loss and its gradient are those of others' GRPO: TRL's `dr_grpo` and mlx-lm-lora's, on the same ids.

Written anew in torch from their sources (TRL 1.16, mlx-lm-lora 5.10.2): the ratio to the policy that sampled,
clipped, masked to the completions, divided by completions times the most tokens. `EMERGENCE_PEERS` names a
Python with torch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from emergence.backend import numpy_ops
from emergence.training import rollouts
from emergence.training.objectives import policy_loss
from emergence.training.rollouts import Written

PEERS = os.environ.get("EMERGENCE_PEERS", "")
VOCAB, MOST, GROUP = 11, 6, 4
IN_TORCH = """
import sys
import numpy as np
import torch

case = np.load(sys.argv[1])
logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
ids, mask, rewards = (torch.tensor(case[name]) for name in ("ids", "mask", "rewards"))
advantages = (rewards - rewards.mean(dim=1, keepdim=True)).reshape(-1, 1)
logps = torch.log_softmax(logits, dim=-1).gather(-1, ids[..., None])[..., 0]
found = {}
for name, epsilon in (("trl", 0.2), ("mlx-lm-lora", 1e-4)):
    ratio = torch.exp(logps - logps.detach())
    clipped = torch.clamp(ratio, 1 - epsilon, 1 + epsilon)
    each = -torch.min(ratio * advantages, clipped * advantages)
    loss = (each * mask).sum() / (each.shape[0] * int(case["most"]))
    (slope,) = torch.autograd.grad(loss, logits, retain_graph=True)
    found |= {f"{name} loss": loss.item(), f"{name} gradient": slope.numpy()}
np.savez(sys.argv[2], **found)
"""


@pytest.mark.skipif(not PEERS, reason="EMERGENCE_PEERS names no Python with requirements/peers.txt")
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_those_of_trl_and_mlx_lm_lora(data, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, lengths = data[0][:3], rng.integers(1, MOST + 1, size=(3, GROUP))
    ids = np.zeros((3 * GROUP, MOST), np.int64)
    mask = np.arange(MOST) < lengths.reshape(-1, 1)
    ids[mask] = rng.integers(VOCAB, size=mask.sum())
    ids[:, 0] = np.tile(np.arange(GROUP), 3)  # no two completions of a group are alike
    given = np.array([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]])
    logits = rng.normal(size=(3 * GROUP, MOST, VOCAB))
    case, found = tmp_path / "case.npz", tmp_path / "found.npz"
    np.savez(case, logits=logits, ids=ids, mask=mask, rewards=given, most=MOST)
    subprocess.run([PEERS, "-c", IN_TORCH, str(case), str(found)], check=True)
    theirs = np.load(found)

    texts = [tuple(int(i) for i in line[keep]) for line, keep in zip(ids, mask, strict=True)]
    groups = [[Written(t, (), ()) for t in texts[k * GROUP : (k + 1) * GROUP]] for k in range(3)]
    share = given.size * MOST
    batches = rollouts.weighted(rows, groups, rollouts.advantages(given) / share)

    def loss(z: mx.array) -> mx.array:
        total = mx.array(0.0)
        for batch in batches:
            starts = np.flatnonzero(np.diff(batch.row, prepend=-1))
            lines = [
                texts.index(tuple(batch.target[a:b].tolist()), GROUP * _group(rows, batch, a))
                for a, b in zip(starts, [*starts[1:], len(batch.row)], strict=True)
            ]
            at = [(line, t) for line in lines for t in range(len(texts[line]))]
            chosen = z[mx.array([i for i, _ in at]), mx.array([t for _, t in at])]
            total = total + policy_loss(chosen, mx.array(batch.target), mx.array(batch.weight))
        return total

    with numpy_ops.lazily():
        value, slope = mx.value_and_grad(loss)(mx.array(logits.astype(np.float32)))
    # A ratio of 1 leaves the advantage as the loss; ours is the log-likelihood, of the same gradient.
    for name in ("trl", "mlx-lm-lora"):
        assert np.abs(np.array(slope) - theirs[f"{name} gradient"]).max() < 1e-5
        assert np.abs(theirs[f"{name} gradient"]).max() > 1e-3
    advantage = rollouts.advantages(given).reshape(-1, 1)
    assert theirs["trl loss"] == pytest.approx(-(advantage * mask).sum() / share, abs=1e-12)
    z = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    logps = np.take_along_axis(z, ids[..., None], axis=-1)[..., 0]
    assert float(value) == pytest.approx(-(advantage * logps * mask).sum() / share, abs=1e-5)


def _group(rows, batch, first: int) -> int:
    """Which prompt the completion whose tokens begin at `first` follows."""
    line = int(batch.row[first])
    prompt = tuple(batch.tokens[line, : batch.last[line] + 1].tolist())
    return next(k for k, row in enumerate(rows) if row.prompt_ids == prompt)
