"""Patching and subspace interchange against TransformerLens' own, on the same weights: logits within 1e-4.

`EMERGENCE_PEERS` is a Python with `requirements/peers.txt` installed; without it this is skipped.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny
from mlx_lm import load

from emergence.interventions import interchange, random_basis
from emergence.interventions.last_token import LastToken
from emergence.lens.edits import Edit
from emergence.lens.logit_lens import LogitLens

PEERS = os.environ.get("EMERGENCE_PEERS")
THEIRS = """
import sys
import numpy as np, torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import interchange

given = np.load(sys.argv[2])
model = TransformerBridge.boot_transformers(sys.argv[1], device="cpu", dtype=torch.float32)
model.eval()
base, source = (torch.tensor(given[name]) for name in ("base", "source"))
last = torch.full((len(base),), base.shape[1] - 1)
answers = lambda ids: model(ids)[:, -1]
found = {}
for layer in range(int(given["layers"])):
    hook = f"blocks.{layer}.hook_resid_post"
    theirs = interchange.collect_activations(model, hook, source, answers, positions=last)
    whole = torch.eye(theirs.shape[1])
    for name, basis in (("whole", whole), ("part", torch.tensor(given["basis"]).T)):
        for strength in (1.0, 0.5):
            rule = interchange.SubspaceInterchange(basis, strength)
            z = interchange.intervened_logits(model, hook, rule, base, theirs, answers, positions=last)
            found[f"{name} {strength} {layer}"] = z.numpy()
np.savez(sys.argv[3], **found)
"""


@pytest.mark.slow
@pytest.mark.skipif(not PEERS, reason="EMERGENCE_PEERS names no Python with requirements/peers.txt")
def test_exchanged_streams_give_the_logits_that_transformer_lens_gives(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model", tied=False)
    rng = np.random.default_rng(0)
    model, _ = load(str(folder))
    lens = LogitLens(model)
    base, source = rng.integers(0, lens.head_size, (2, 6, 7))
    size = lens.streams(base.tolist(), [0]).shape[-1]
    basis = random_basis(5, size)
    np.savez(tmp_path / "in.npz", base=base, source=source, basis=basis, layers=lens.n_layers)
    (tmp_path / "theirs.py").write_text(THEIRS)
    paths = [str(folder), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run([str(PEERS), str(tmp_path / "theirs.py"), *paths], check=True, capture_output=True)
    theirs = np.load(tmp_path / "out.npz")
    every = np.tile(np.arange(lens.head_size), (len(base), 1))
    rest = LastToken(lens, base.tolist())
    for layer in range(lens.n_layers):
        streams, own = (lens.streams(x.tolist(), [layer])[0] for x in (source, base))
        for name, part in (("whole", None), ("part", basis)):
            for strength in (1.0, 0.5):
                rule = interchange(streams, part, strength)
                with lens.patched([Edit(layer, -1, rule)]):
                    ours = lens.logits(base.tolist())[-1]
                np.testing.assert_allclose(ours, theirs[f"{name} {strength} {layer}"], atol=1e-4)
        np.testing.assert_allclose(
            rest.logits(every, layer, streams), theirs[f"whole 1.0 {layer}"], atol=1e-4
        )
        moved = own + ((streams - own) @ basis.T) @ basis
        np.testing.assert_allclose(rest.logits(every, layer, moved), theirs[f"part 1.0 {layer}"], atol=1e-4)
