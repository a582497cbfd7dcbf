"""What a lens has read: arrays with named axes, the token ids they belong to, tidy rows, a readable table.
NumPy only.

In: what `LogitLens.read` fills. Out: `LensReading`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class LensReading:
    """What the lens says at every (layer, prompt) or (layer, prompt, position).

    The position axis is there if positions were asked for as a list or as "all"; where a prompt is shorter
    than the longest, values are NaN and ids -1. All in nats (natural logarithms of probabilities), float32.
    """

    layers: tuple[str, ...]
    """`L13` is the stream after block 13, `L13.attn` the one between its attention and its feed-forward
    part."""
    tokens: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]
    """By prompt, the positions that were read, counted from 0."""
    sets: dict[str, tuple[int, ...]]
    token_ids: tuple[int, ...]
    left_out: int
    """Rows that pad the head beyond the tokenizer's vocabulary: no part of any distribution here."""
    log_mass: Float[np.ndarray, "layer prompt *position set"]
    top_ids: Int[np.ndarray, "layer prompt *position k"]
    top_log_probs: Float[np.ndarray, "layer prompt *position k"]
    entropy: Float[np.ndarray, "layer prompt *position"]
    kl: Float[np.ndarray, "layer prompt *position"]
    """KL(output layer || layer)."""
    kl_previous: Float[np.ndarray, "layer prompt *position"]
    """KL(layer || layer before it); NaN for the first."""
    log_probs: Float[np.ndarray, "layer prompt *position token"]
    ranks: Int[np.ndarray, "layer prompt *position token"]
    """How many tokens are more likely; 0 is the likeliest."""
