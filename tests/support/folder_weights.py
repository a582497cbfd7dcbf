"""Weights drawn from a tensor's name alone, the same bits wherever they are drawn; needs NumPy only."""

from __future__ import annotations

import hashlib
import math

import numpy as np

VOCAB = 64
TOKENS = [[3, 17, 42, 5, 5, 61, 29, 8, 50, 33, 12, 60]]
"""The one prompt that every case is computed on; longer than the windows and chunks of the cases."""


def tensor(name: str, shape: list[int]) -> np.ndarray:
    """Float32 array: matrices of about unit gain, norms about one, everything else about zero.

    SHAKE-256 of the name gives two bytes a value; the rest is IEEE arithmetic in float64, rounded once.
    """
    count = math.prod(shape)
    words = np.frombuffer(hashlib.shake_256(name.encode()).digest(2 * count), dtype="<u2")
    uniform = (2.0 * words.astype(np.float64) - 65535.0) / 65536.0  # within ±1
    if len(shape) > 1:
        values = uniform * math.sqrt(3.0 / shape[-1])
    elif ("norm" in name and name.endswith("weight")) or "scal" in name:
        values = 1.0 + 0.3 * uniform
    else:
        values = 0.3 * uniform
    return values.astype(np.float32).reshape(shape)
