"""How far apart two ways to the same logits are, and how far they may be.

In: logits. Out: one number, relative to their spread.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative difference that is accepted, by the dtype of the residual stream.

The last layer is read in float32 while the model rounds to its own dtype, and half-precision products depend
on the shape of the batch.
"""


def tolerance(dtype: str) -> float:
    """Largest relative difference that is accepted for a stream of this dtype, such as `float16`."""
    return TOLERANCE.get(dtype, TOLERANCE["bfloat16"])


def difference(found: mx.array, right: mx.array) -> float:
    """Root mean square of the difference over the standard deviation of `right`.

    Infinite where the shapes differ in size, or only one of the two is finite.
    """
    if found.size != right.size:
        return float("inf")
    a, b = (np.array(x.astype(mx.float32), dtype=np.float64).reshape(right.shape) for x in (found, right))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    spread = float(b[finite].std()) or 1.0
    return float(np.sqrt(np.mean((a[finite] - b[finite]) ** 2)) / spread)
