"""Prompts, token sets and a lens by hand, for tests of the lens."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from emergence.lens.reading import LensReading

PROMPTS = [[5, 6, 7, 8], [9, 10], [1, 2, 3, 4], [11, 12, 13, 14, 15], [20, 3]]
SETS = {"add": [1, 2, 3], "other": [40]}


def by_hand(model: nn.Module, prompt: list[int]) -> np.ndarray:
    """Logits [layer, position, vocab] of a llama: block by block with a causal mask, final norm, head."""
    h = model.model.embed_tokens(mx.array([prompt]))
    found = []
    for block in model.layers:
        h = block(h, "causal" if len(prompt) > 1 else None)
        found.append(model.model.embed_tokens.as_linear(model.model.norm(h))[0])
    return np.array(mx.stack(found))


def same(found: LensReading, right: LensReading) -> None:
    for name in ("log_mass", "top_log_probs", "entropy", "kl", "kl_previous", "log_probs"):
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), atol=1e-4, err_msg=name)
    np.testing.assert_array_equal(found.top_ids, right.top_ids)
    np.testing.assert_array_equal(found.ranks, right.ranks)
