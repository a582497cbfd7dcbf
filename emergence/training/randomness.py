"""Stage training: random numbers that are functions of a run's seed and the step, not of what came before.

In: a run's seed. Out: seeds of independent streams, and MLX's global generator set to one for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

ADAPTERS, DROPOUT, SAMPLES, PERMUTED, START = 1, 2, 3, 4, 5
"""The streams that a run's seed is split into; all but the first are split again by the step."""


def derived(*seeds: int) -> int:
    """Return 64 bits that depend on all of `seeds`: (3, 1) and (1, 3) give unrelated numbers."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Set MLX's global generator, which mlx-lm's layers draw from, to `seed`; on exit put its state back."""
    high, low = (int(n) for n in np.array(mx.random.state[0]))  # type: ignore[index]
    mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)
