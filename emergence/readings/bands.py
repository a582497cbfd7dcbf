"""Ranges of depth that a claim may speak of, by name. Pure Python."""

from __future__ import annotations

import math

from ..errors import UsageError

TARGET_DEPTH = 0.54
"""Where GPT-OSS's classifier sits, and where the classification term of the arm `classified` is put."""
BANDS: dict[str, tuple[float, float]] = {"intermediate": (0.0, 1.0), "middle": (0.25, 0.75)}
"""Ranges of depth, both ends included; the output layer is in none. `at 54 %` is the third: see `layers`."""
AT_TARGET = "at 54 %"


def layers(band: str, n_layers: int) -> tuple[int, ...]:
    """0-based layers of a band in a model of `n_layers` blocks; depth is `(layer + 1) / n_layers`.

    `at 54 %` is the block at that depth (index `floor(0.54 n)`) and the one on either side.

    Raises
    ------
    UsageError
        There is no such band.
    """
    inner = range(n_layers - 1)
    if band == AT_TARGET:
        centre = math.floor(TARGET_DEPTH * n_layers)
        return tuple(i for i in inner if abs(i - centre) <= 1)
    if band not in BANDS:
        raise UsageError(f"band {band!r} is unknown; known bands: {', '.join([*BANDS, AT_TARGET])}")
    low, high = BANDS[band]
    return tuple(i for i in inner if low <= (i + 1) / n_layers <= high)
