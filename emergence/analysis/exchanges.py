"""What exchanges carry by layer, for figures and pages: sums over pairs, no statistics package.

In: `Effects` of the seeds of an arm. Out: shares by seed and layer. `carried` has their intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..readings.effects import Effects
from ..readings.readings import Prompt


@dataclass(frozen=True)
class Profile:
    """For people to look at: what the exchange of a part carries by layer, for the pairs of one class."""

    share: Float[np.ndarray, "seed layer"]
    placebo: Float[np.ndarray, "layer draw"]
    """Means over seeds; NaN where no placebo was made."""


def profile(effects: Sequence[Effects], part: str, mine: Int[np.ndarray, " pair"]) -> Profile:
    """Shares at every layer, NaN where the part was not exchanged."""
    wholes = [float(e.whole[mine].sum()) or np.nan for e in effects]
    share = np.stack([e.gained[part][:, mine].sum(axis=1) / w for e, w in zip(effects, wholes, strict=True)])
    held = [
        e.placebo[part][:, :, mine].sum(axis=2) / w
        for e, w in zip(effects, wholes, strict=True)
        if part in e.placebo
    ]
    none = np.full((share.shape[1], 1), np.nan)
    return Profile(share, np.mean(held, axis=0) if held else none)


def of_class(e: Effects, prompts: Sequence[Prompt], cls: str) -> Int[np.ndarray, " pair"]:
    """The pairs whose base prompt is of a class."""
    return np.flatnonzero(np.array([prompts[i].cls == cls for i in e.pairs[:, 0]], dtype=bool))
